//! Every command of a device, alone and through `serve`: it says the same, ends with the same code, and
//! what it did is the same.

use crate::desk::Desk;

const CATALOG: &str = r#"
catalog = 1

[type.customer]
share = "{{ record.name }} in {{ record.city }}"
[type.customer.field.name]
[type.customer.field.city]

[type.order]
[type.order.field.customer]
ref = "customer"
[type.order.field.discount]
schema = { type = "integer" }
[type.order.field.boxes]
kind = "counter"
[type.order.field.lines]
kind = "set"
[type.order.field.lines.field.product]
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.photos]
kind = "attachment"
"#;

/// Files beside the directories, at PLACE in what is typed.
const FILES: &[(&str, &str)] = &[
    ("rows.csv", "id,name,city\nc7,Pier,Riga\nc8,Quay,Tallinn\n"),
    ("order.json", r#"{"customer": "c1", "discount": 5}"#),
    ("front.txt", "the shelf"),
];

/// What is typed, one after the other.
const SCRIPT: &[&str] = &[
    "status",
    "put customer/c1 name=Kiosk city=Riga",
    "put order/o1 customer=c1 discount=10 boxes+=2 lines[1].product=tea",
    "put order/o1 discount=x",
    "put ordre/o1 discount=1",
    "put order/o2 customer=c1 discount=45 --what-if",
    "put order/o2 customer=c1 discount=45 --strict",
    "put order/o2 customer=c1 discount=45 --await judged",
    "put visit/v1 outlet=41",
    "get order/o1",
    "get order/o1 --history",
    "get order/o2 --last-valid",
    "get order/none",
    "list order",
    "list order --where discount=45",
    "list nothing",
    "history order/o1",
    "history order/o1 --limit 1",
    "history order/o1 --before zz",
    "history order/none",
    "revert order/o1 --to 2001-01-01T00:00:00Z",
    "revert order/o1 colour --to 2099-01-01T00:00:00Z",
    "revert order/o1 --to 2099-01-01T00:00:00Z",
    "revert order/none --to 2099-01-01T00:00:00Z",
    "share customer/c1",
    "share order/o2",
    "share order/none",
    "conflicts order/o1",
    "resolve order/o1 discount=2",
    "put order/o4 --from PLACE/order.json",
    "put order/o4 discount=50 --await judged",
    "get order/o4 --read last_valid",
    "attention list",
    "resolve order/o4 discount=last_valid",
    "get order/o4",
    "at order/o1 2001-01-01T00:00:00Z",
    "search kios",
    "search nowhere",
    "search kios --type customer",
    "search kios --type order",
    "attach visit/v1 photos PLACE/front.txt",
    "attach visit/v1 outlet PLACE/front.txt",
    "attachments list visit/v1",
    "attachments get visit/v1 front.txt",
    "attachments pause",
    "attachments list",
    "attachments resume",
    "attachments retry",
    "peers --qr",
    "explain order/o2",
    "explain order/none",
    "advice",
    "attention list",
    "attention show order/o2",
    "attention retry order/o2",
    "attention dismiss order/o2 --note later",
    "attention list",
    "attention reopen order/o2",
    "pin customer/c1 --reason open --owner till",
    "pin",
    "unpin --owner till",
    "pause order",
    "status",
    "put order/o3 customer=c1",
    "resync order",
    "resume",
    "pause nothing",
    "subscribe visit=41",
    "unsubscribe visit=42",
    "subscribe visit=*",
    "subscribe order=1",
    "clear --dry-run",
    "clear customer --yes",
    "clear --yes",
    "resync order",
    "resync",
    "delete customer/c1",
    "get customer/c1",
    "put customer/c1 city=Tartu",
    "put customer/c1 --undelete city=Tartu",
    "export order",
    "export order --format csv",
    "import customer /nowhere/rows.csv --dry-run",
    "import customer PLACE/rows.csv --dry-run",
    "import customer PLACE/rows.csv",
    "import customer PLACE/rows.csv",
    "get customer/c7",
    "bundle export /nowhere/bundle --for relay",
    "bundle export /nowhere/bundle --for ann",
    "bundle import /nowhere/bundle",
    "doctor",
    "doctor --repair",
    "status",
];

fn says_and_does_the_same_alone_and_through_serve(json: bool) {
    let (alone, served) = (Desk::new(CATALOG, false), Desk::new(CATALOG, true));
    for desk in [&alone, &served] {
        FILES.iter().for_each(|(name, content)| drop(desk.place.file(name, content)));
    }
    for args in SCRIPT {
        let [one, other] = [&alone, &served].map(|desk| desk.said(&desk.run(args, json)));
        assert_eq!(one, other, "{args} (json: {json})");
    }
    served.close();
}

#[test]
fn every_command_says_and_does_the_same_alone_and_through_serve() {
    says_and_does_the_same_alone_and_through_serve(false);
}

#[test]
fn so_it_does_for_programs() {
    says_and_does_the_same_alone_and_through_serve(true);
}
