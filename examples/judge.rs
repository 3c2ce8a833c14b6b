//! A relay of one's own, with a rule in Rust: no order may take a customer above the limit that a table of
//! the bank's says. Run it with `cargo run --example judge`.
//!
//! The program embeds the relay, brings the rule, and has a device write two orders. The device cannot
//! know that table: it says that the relay will judge, and hears of it with the next sync.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::collections::BTreeMap;
use std::time::Duration;

use fieldkeep_device::{Device, join};
use fieldkeep_link::KeyFile;
use fieldkeep_model::{Grant, KeyPair};
use fieldkeep_relay::{Directory, Judge, Judges, Matter, Relay, admin_key, invite};
use serde_json::json;

const CATALOG: &str = r#"
catalog = 1

[type.order.field]
account = { required = true }
total = { required = true, schema = { type = "integer" } }

# It sees the fields that it says it reads. Another version has every order judged again.
[[type.order.rule]]
name = "credit"
judge = "credit"
version = 1
reads = ["account", "total"]
reason = "the order is above the account's limit"
"#;

/// What the bank allows, in cents. It is the same whenever a record is judged: a rule must not depend on
/// anything else than its argument and its version.
struct Credit(BTreeMap<String, i64>);

impl Judge for Credit {
    fn holds(&self, matter: &Matter) -> Result<bool, String> {
        let account = matter.record["account"].as_str().unwrap_or_default();
        let limit = self.0.get(account).ok_or("the bank does not know the account")?;
        Ok(matter.record["total"].as_i64().is_some_and(|total| total <= *limit))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let path = root.path().join("relay");
    let limits = BTreeMap::from([("kiosk".to_owned(), 50_000)]);
    let judges = Judges::default().with("credit", Credit(limits));
    let directory = Directory::init(&path, "acme", Some(CATALOG))?.with_judges(judges);
    let relay = Relay::serve(directory, "127.0.0.1:0".parse()?)?;

    let ann = enrolled(&relay, &path, root.path()).await?;
    ann.save(&"order/small".parse()?, &json!({"account": "kiosk", "total": 4_900}))?;
    ann.save(&"order/large".parse()?, &json!({"account": "kiosk", "total": 90_000}))?;
    ann.save(&"order/odd".parse()?, &json!({"account": "pier", "total": 100}))?;
    for (when, sync) in [("before it has synced", false), ("afterwards", true)] {
        if sync {
            ann.sync(Duration::from_secs(20)).await?;
        }
        println!("{when}:");
        for order in ["order/small", "order/large", "order/odd"] {
            let record = ann.get(&order.parse()?)?.expect("it was just written");
            println!("  {order:12} {:?} {}", record.state, record.reasons.join(", "));
        }
    }
    relay.stop().await;
    Ok(())
}

/// A device that the admin of the organisation has invited.
async fn enrolled(
    relay: &Relay,
    path: &std::path::Path,
    root: &std::path::Path,
) -> anyhow::Result<Device> {
    let admin = KeyFile::open(admin_key(path))?.signing();
    let mut secret = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut secret)?;
    let one_time = KeyPair::from_secret(secret);
    let address = relay.address();
    let handle = relay.handle();
    let asked = handle.call(move |engine| {
        let members = engine.replica().members();
        let (entry, mut ticket) =
            invite(members, &admin, one_time, "ann", vec![Grant::ALL], i64::MAX);
        ticket.addresses = vec![address];
        engine.append_members(&[entry]).map(|_| ticket)
    });
    let ticket = asked.await.expect("the relay runs")?;
    let directory = root.join("ann");
    join(&ticket, &directory).await?;
    Ok(Device::open(&directory)?)
}
