//! `relay catalog` as an operator types it: a file checked, compared, published and rolled back, while
//! the relay serves and while it does not.

use crate::process::{self, Place, Ran};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.customer.field.discount]
schema = { type = "integer" }
"#;

const RULE: &str = r#"
[[type.customer.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
"#;

/// Runs `relay catalog` with words, on a file if one is given.
fn catalog(place: &Place, words: &[&str], file: Option<&str>) -> Ran {
    let path = file.map(|content| place.file("next.toml", content));
    let path = path.as_ref().map(|path| path.to_str().expect("a plain path"));
    let words: Vec<_> = words.iter().copied().chain(path).collect();
    place.run("relay", &[&["relay", "catalog"], &words[..]].concat())
}

/// Where the catalog in force stands, once nothing is left to be judged.
fn judged(place: &Place) -> Value {
    loop {
        let standing = catalog(place, &["status", "--json"], None).json();
        if standing["left"] == json!(0) {
            return standing;
        }
    }
}

#[test]
fn a_file_is_checked_without_a_relay() {
    let place = Place::new();
    let check = |content: &str, json: bool| {
        let path = place.file("check.toml", content);
        let path = path.to_str().expect("a plain path");
        let mut args = vec!["relay", "catalog", "check", path];
        args.extend(json.then_some("--json"));
        process::finish(
            {
                let mut command = place.command("nowhere", &args);
                command.env_remove("FIELDKEEP_DIR");
                command
            },
            "",
        )
    };
    let dead = format!(
        "{CATALOG}{RULE}[[type.customer.rule]]\nname = \"idle\"\ncel = \"true || has(record.name)\"\nreason = \"r\"\n"
    );
    let checked = check(&dead, true).json();
    assert_eq!(checked["schema"], "fieldkeep/relay-catalog-check/1");
    assert_eq!((&checked["dead_rules"], &checked["follows"]), (&json!(1), &Value::Null));
    let rules = &checked["types"][0]["rules"];
    assert_eq!((&rules[0]["name"], &rules[0]["dead"]), (&json!("discount"), &Value::Null));
    let (steps, budget) = (rules[0]["steps"].as_u64(), checked["budget"].as_u64());
    assert!(steps > Some(0) && steps < budget, "{steps:?} of {budget:?}");
    assert_eq!(rules[1]["dead"], "never_broken");
    let told = check(&dead, false).ok();
    for word in ["customer", "idle", "it can hold none", "1 rule decides nothing"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let wrong = check(&CATALOG.replace("schema", "shema"), false);
    assert_eq!(wrong.code, 4, "{}", wrong.err);
    assert!(wrong.err.contains("line 6") && wrong.err.contains("schema"), "{}", wrong.err);
    let costly = format!(
        "{CATALOG}[type.customer.field.lines]\nkind = \"set\"\n[[type.customer.rule]]\nname = \"r\"\n\
         cel = \"record.lines.all(a, record.lines.all(b, record.lines.all(c, a == b)))\"\nreason = \"r\"\n"
    );
    let wrong = check(&costly, false);
    assert_eq!(wrong.code, 4, "{}", wrong.err);
    assert!(wrong.err.contains("steps"), "{}", wrong.err);
    let absent = place.run("relay", &["relay", "catalog", "check", "nothing.toml"]);
    assert_eq!(absent.code, 3, "{}", absent.err);
}

#[test]
fn a_catalog_is_compared_published_and_rolled_back_while_the_relay_serves() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "customer/1", "name=Kiosk", "discount=45"]).ok();
    place.run("ann", &["put", "customer/2", "name=Pier", "discount=10"]).ok();
    place.run("ann", &["sync"]).ok();

    let next = format!("{CATALOG}{RULE}");
    let checked = catalog(&place, &["check", "--json"], Some(&next)).json();
    assert_eq!(checked["follows"], json!({"number": 1, "same": false, "problems": []}));
    let frozen = catalog(&place, &["check"], Some("catalog = 1\n[type.customer]\n"));
    assert_eq!(frozen.code, 4, "{}", frozen.err);
    assert!(frozen.out.contains("cannot be removed"), "{}", frozen.out);

    let diff = catalog(&place, &["diff", "--json"], Some(&next)).json();
    assert_eq!(diff["schema"], "fieldkeep/relay-catalog-diff/1");
    assert_eq!((&diff["number"], &diff["records"]), (&json!(1), &json!(2)));
    let one = json!({"held": 1, "waiting": 0, "released": 0, "otherwise": 0});
    assert_eq!(diff["counts"], one);
    assert_eq!(diff["types"]["customer"], one);
    let cause = &diff["causes"][0];
    assert_eq!((&cause["rule"], &cause["change"]), (&json!("discount"), &json!("added")));
    assert_eq!(cause["examples"][0]["record"], "customer/1");
    assert_eq!(cause["sentences"][0]["text"], "the discount is above 30 percent");
    assert_eq!(diff["devices"][0]["device"], "ann");
    assert_eq!((&diff["devices"][0]["counts"], &diff["problems"]), (&one, &json!([])));
    let told = catalog(&place, &["diff"], Some(&next)).ok();
    for word in ["added: rule discount", "1 would be held", "customer/1", "nothing was published"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let unfit = catalog(&place, &["diff", "--json"], Some("catalog = 1\n[type.customer]\n"));
    assert_eq!(unfit.code, 4, "{}", unfit.err);
    let unfit: Value = serde_json::from_str(&unfit.out).expect("a line of JSON");
    assert_eq!(unfit["problems"].as_array().map(Vec::len), Some(2), "{unfit}");

    let published = catalog(&place, &["publish", "--note", "no gifts", "--json"], Some(&next));
    let published = published.json();
    assert_eq!(published["schema"], "fieldkeep/relay-publish/1");
    assert_eq!((&published["number"], &published["changed"]), (&json!(2), &json!(true)));
    let trail = place.run("relay", &["relay", "operator", "trail"]).ok();
    assert!(trail.contains("publish") && trail.contains("catalog 2"), "{trail}");
    let standing = judged(&place);
    assert_eq!(standing["schema"], "fieldkeep/relay-catalog-status/1");
    assert_eq!(standing["catalog"]["note"], "no gifts");
    assert_eq!((&standing["catalog"]["held"], &standing["serving"]), (&json!(1), &json!(true)));
    place.run("ann", &["sync"]).ok();
    assert_eq!(place.run("ann", &["get", "customer/1", "--json"]).json()["state"], "held");

    let back = catalog(&place, &["diff", "--number", "1", "--json"], None).json();
    assert_eq!(back["counts"]["released"], json!(1));
    assert_eq!(catalog(&place, &["diff", "--number", "9"], None).code, 3);
    assert_eq!(catalog(&place, &["diff"], None).code, 2);
    assert_eq!(catalog(&place, &["rollback", "9"], None).code, 3);
    assert_eq!(catalog(&place, &["rollback", "--json"], None).json()["number"], json!(3));
    judged(&place);
    let listed = catalog(&place, &["list", "--json"], None).json();
    assert_eq!(listed["schema"], "fieldkeep/relay-catalog-list/1");
    let rows = listed["catalogs"].as_array().expect("a list");
    let told: Vec<_> = rows.iter().map(|row| [&row["number"], &row["note"]]).collect();
    let expected = [
        [json!(3), json!("back to catalog 1")],
        [json!(2), json!("no gifts")],
        [json!(1), json!("")],
    ];
    assert_eq!(told, expected.each_ref().map(|row| row.each_ref()));
    assert_eq!((&rows[0]["in_force"], &rows[0]["released"]), (&json!(true), &json!(1)));
    assert_eq!(rows[0]["hash"], rows[2]["hash"]);
    assert!(rows.iter().all(|row| row["published_at"].is_string()), "{listed}");
    place.run("ann", &["sync"]).ok();
    assert_eq!(place.run("ann", &["get", "customer/1", "--json"]).json()["state"], "valid");
    assert_eq!(relay.stop("INT"), 0);
}

/// What the reference shows is a catalog, all of it together.
#[test]
fn the_catalog_of_the_reference_is_one() {
    let place = Place::new();
    let text = include_str!("../../docs/catalog.md");
    let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let catalog = place.file("reference.toml", &blocks.collect::<String>());
    let args = ["relay", "catalog", "check", catalog.to_str().expect("a plain path")];
    let mut command = place.command("nowhere", &args);
    command.env_remove("FIELDKEEP_DIR");
    process::finish(command, "").ok();
}

#[test]
fn a_query_that_does_more_than_read_is_refused_and_changes_nothing() {
    let place = Place::new();
    let _relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "customer/c1", "name=Pier"]).ok();
    place.run("ann", &["sync"]).ok();
    let before = judged(&place);
    for sql in [
        "DELETE FROM customer",
        "ATTACH 'x' AS x",
        "SELECT * FROM record",
        "PRAGMA user_version = 9",
    ] {
        let query = format!("{CATALOG}\n[query.all]\nwho = \"everyone\"\nsql = \"{sql}\"\n");
        let path = place.file("next.toml", &query);
        let path = path.to_str().expect("a plain path");
        for words in [&["relay", "catalog", "check", path][..], &["relay", "publish", path]] {
            let refused = place.run("relay", words);
            assert_eq!(refused.code, 4, "{sql}: {} {}", refused.out, refused.err);
            assert!(refused.err.contains("all"), "{sql}: {}", refused.err);
        }
    }
    assert_eq!(judged(&place), before, "nothing was published");
    assert_eq!(
        place.run("relay", &["get", "customer/c1", "--json"]).json()["deleted"],
        json!(false)
    );
}

#[test]
fn the_same_commands_work_while_nobody_serves() {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.run("ann", &["put", "customer/1", "discount=45"]).ok();
    place.run("ann", &["sync"]).ok();
    assert_eq!(relay.stop("INT"), 0);
    let next = format!("{CATALOG}{RULE}");
    let diff = catalog(&place, &["diff", "--json"], Some(&next)).json();
    assert_eq!(diff["counts"]["held"], json!(1));
    assert_eq!(catalog(&place, &["publish", "--json"], Some(&next)).json()["number"], json!(2));
    // To look does not go on with it; whoever works on the directory does.
    let standing = catalog(&place, &["status", "--json"], None).json();
    assert_eq!((&standing["left"], &standing["serving"]), (&json!(1), &json!(false)));
    let told = catalog(&place, &["status"], None).ok();
    assert!(told.contains("still to be judged by it: 1 of 1 record"), "{told}");
    let held = place.run("relay", &["relay", "quarantine", "list", "--json"]).json();
    assert_eq!(held["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(judged(&place)["catalog"]["held"], json!(1));
    assert!(catalog(&place, &["rollback"], None).ok().contains("published catalog 3"));
    assert_eq!(catalog(&place, &["rollback", "1"], None).code, 0);
    let listed = catalog(&place, &["list"], None).ok();
    assert!(listed.contains("in force: back to catalog 1"), "{listed}");
    // The command that publishes is short for the other.
    let path = place.file("next.toml", &next);
    let path = path.to_str().expect("a plain path");
    place.run("relay", &["relay", "publish", path, "--note", "again"]).ok();
    assert!(catalog(&place, &["list"], None).ok().contains("in force: again"));
    let device = place.run("ann", &["relay", "catalog", "diff", path]);
    assert_eq!(device.code, 2, "{}", device.err);
}

#[test]
fn records_of_a_type_that_the_catalog_lost_stay_and_are_told_as_held() {
    let narrow = "catalog = 1\n[type.customer.field]\nname = {}\n";
    let place = Place::new();
    let _relay = place.relay(narrow);
    place.device("ann", &[]);
    let wide = place.file("wide.toml", &format!("{narrow}[type.lead.field]\nname = {{}}\n"));
    let wide = wide.to_str().expect("a plain path");
    place.run("relay", &["relay", "catalog", "publish", wide]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["put", "lead/l1", "name=Pier"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("relay", &["relay", "catalog", "rollback"]).ok();
    place.run("ann", &["sync"]).ok();
    let lead = place.run("ann", &["get", "lead/l1", "--json"]).json();
    assert_eq!((&lead["fields"]["name"], &lead["state"]), (&json!("Pier"), &json!("held")));
    let listed = place.run("ann", &["attention", "list"]).ok();
    assert!(listed.contains("lead/l1  held"), "{listed}");
    let refused = place.run("ann", &["put", "lead/l1", "name=Quay"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("no object type `lead`"), "{}", refused.err);
    let status = place.run("ann", &["status", "--json"]).json();
    let types = status["types"].as_array().expect("a list").iter();
    let lead = types.into_iter().find(|ty| ty["type"] == "lead").expect("it has a record");
    assert_eq!((&lead["local"], &lead["held"]), (&json!(1), &json!(1)));
}
