//! An organisation among whose members are two that misbehave.

use fieldkeep_model::{SegmentAddress, TypeName};
use serde_json::json;

use super::wire::Raw;
use super::{Connected, Site, logs, put, reaches, state, sync};

pub(crate) const CATALOG: &str = r#"
catalog = 1
[type.customer]
[type.customer.field.name]
[type.order]
[type.order.field.note]
[type.order.field.price]
schema = { type = "integer" }
[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.remark]
[type.visit.field.guests]
schema = { type = "integer" }
[[type.visit.rule]]
name = "guests"
cel = "!has(record.guests) || record.guests < 100"
reason = "no outlet has room for 100"
"#;

/// The one segment of a type and scope.
pub(crate) fn address(ty: &str, scope: &str) -> SegmentAddress {
    let ty = TypeName::new(ty).expect("a name");
    SegmentAddress { ty, scope: scope.into(), buckets: 1, bucket: 0, generation: 0 }
}

/// A site with an honest device that stays connected, and two members that will misbehave.
pub(crate) struct Town {
    pub(crate) site: Site,
    pub(crate) ben: fieldkeep_device::Device,
    _connected: Connected,
    pub(crate) mallory: Raw,
    pub(crate) mia: Raw,
}

impl Town {
    pub(crate) async fn peopled() -> Self {
        let site = Site::founded(CATALOG);
        let ben = site.device("ben").await;
        let mallory = Raw::joined(&site.ticket("mallory").await, 101).await;
        let mia = Raw::joined(&site.ticket("mia").await, 102).await;
        put(&ben, "customer/first", json!({"name": "Kiosk"}));
        let connected = Connected::new(&ben);
        reaches(&ben, "customer/first", "valid").await;
        Self { site, ben, _connected: connected, mallory, mia }
    }

    /// Another device captures and syncs, and the one that was connected all along receives it.
    pub(crate) async fn goes_on(&self, name: &str) {
        let device = self.site.device(name).await;
        let key = format!("customer/{name}");
        put(&device, &key, json!({"name": name}));
        sync(&device).await;
        assert_eq!(state(&device, &key), "valid");
        reaches(&self.ben, &key, "valid").await;
        assert_eq!(logs(&self.ben), self.site.log().await, "the logs are the same");
    }
}
