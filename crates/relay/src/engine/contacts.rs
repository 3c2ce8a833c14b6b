//! Who was here last, and what each said of itself: written down beside whatever else is to be done, so
//! that no visit waits for the disk because of it. A claim of a device decides nothing.

use std::collections::BTreeMap;

use fieldkeep_model::PublicKey;
use fieldkeep_protocol::Report;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Contact, Contacts as _, StoreError};

use super::{ConnectionId, Engine};

/// Visits that are written in one go.
const AT_ONCE: usize = 1_024;

/// Who is connected, and what is known of visits that is not written down yet.
#[derive(Clone, Debug, Default)]
pub struct Attendance {
    /// The members that are connected, by what they are known by, and since when, milliseconds UTC.
    pub connected: BTreeMap<PublicKey, i64>,
    /// Visits that are newer than those in the store.
    pub fresh: BTreeMap<PublicKey, Contact>,
    /// When this was so, milliseconds UTC.
    pub now: i64,
}

impl Engine {
    /// Who is connected, and when others were.
    #[must_use]
    pub fn attendance(&self, now: i64) -> Attendance {
        let members = self.peers.values().filter(|peer| peer.member.is_some());
        let connected = members.filter_map(|peer| Some((self.identity(&peer.key)?, peer.came)));
        Attendance { connected: connected.collect(), fresh: self.contacts.clone(), now }
    }

    fn identity(&self, tls: &PublicKey) -> Option<PublicKey> {
        self.replica.members().by_tls(tls).map(|member| member.identity)
    }

    /// Notes that a member has introduced itself, and what it said then.
    pub(super) fn note_contact(&mut self, id: ConnectionId, members: u64) {
        let peer = self.peers.get_mut(&id).filter(|peer| peer.member.is_some());
        let Some(peer) = peer else { return };
        peer.came = self.now;
        let (software, catalog) = (peer.software.clone(), peer.catalog);
        let contact = Contact { seen: self.now, software, catalog, members, report: None };
        self.keep_contact(id, contact);
    }

    /// Notes what a member says of itself.
    pub(super) fn reported(&mut self, id: ConnectionId, report: Report) {
        let software = self.peers[&id].software.clone();
        self.keep_contact(id, self.contact(software, &report.bounded()));
    }

    fn keep_contact(&mut self, id: ConnectionId, contact: Contact) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.contact = Some(Contact { report: None, ..contact.clone() });
        let tls = peer.key;
        let Some(key) = self.identity(&tls) else { return };
        let earlier = self.contacts.remove(&key).and_then(|earlier| earlier.report);
        let report = contact.report.or(earlier);
        self.contacts.insert(key, Contact { report, ..contact });
    }

    fn contact(&self, software: String, report: &Report) -> Contact {
        let encoded = minicbor::to_vec(report).expect("encoding into memory cannot fail");
        let (catalog, members) = (report.catalog, report.members);
        Contact { seen: self.now, software, catalog, members, report: Some((self.now, encoded)) }
    }

    /// Notes what a member says of itself in a bundle, unless something later was heard of it.
    pub(super) fn report_unpacked(
        &mut self,
        member: &PublicKey,
        report: Report,
    ) -> Result<(), StoreError> {
        let known = match self.contacts.get(member) {
            Some(contact) => Some(contact.clone()),
            None => self.replica.store().contacts()?.remove(member),
        };
        let told = known.as_ref().and_then(|known| known.report.as_ref());
        let told = told.and_then(|(_, bytes)| minicbor::decode::<Report>(bytes).ok());
        if told.is_none_or(|told| told.time < report.time) {
            let software = known.map(|known| known.software).unwrap_or_default();
            self.contacts.insert(*member, self.contact(software, &report.bounded()));
        }
        Ok(())
    }

    /// Notes that a connection ends: until now its member was here.
    pub(super) fn note_parting(&mut self, id: ConnectionId) {
        let contact = self.peers.get_mut(&id).and_then(|peer| peer.contact.take());
        if let Some(contact) = contact {
            self.keep_contact(id, Contact { seen: self.now, ..contact });
        }
    }

    /// Writes down who was here. Returns whether there was anybody; a commit must follow then.
    pub(super) fn write_contacts(&mut self) -> Result<bool, ReplicaError> {
        if self.contacts.is_empty() || self.is_failing() {
            return Ok(false);
        }
        for _ in 0..AT_ONCE {
            let Some((key, contact)) = self.contacts.pop_first() else { break };
            self.replica.store_mut().put_contact(&key, &contact)?;
        }
        Ok(true)
    }
}
