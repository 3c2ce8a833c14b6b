//! Who calls, and what both sides lack of the membership log and the catalog.

use fieldkeep_protocol::frame::{self, Frame, Hello};
use fieldkeep_protocol::{Code, Phase};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Removals as _, StoreError};

use super::peer::Peer;
use super::{ConnectionId, Engine};

/// Characters that are kept of what a peer says it runs.
const SOFTWARE: usize = 64;
/// Connections of one member at a time.
const CONNECTIONS: usize = 2;

impl Engine {
    pub(super) fn hello(&mut self, id: ConnectionId, hello: &Hello) -> Result<(), StoreError> {
        if !hello.versions.contains(&fieldkeep_protocol::VERSION) {
            let text = "no common protocol version: update the software";
            self.close(id, Code::Version, text);
            return Ok(());
        }
        if hello.org != self.replica.org() {
            let text = "this relay serves another organisation";
            self.close(id, Code::ForeignOrganisation, text);
            return Ok(());
        }
        let key = self.peers[&id].key;
        let member = self.replica.members().by_tls(&key);
        let revoked = member.is_some_and(|member| member.revoked);
        let member = member.map(|member| member.number);
        // Where its entries are not the first of these, the two logs have branched: it gets all.
        let same = self.replica.members().sum_at(hello.members) == Some(hello.members_sum());
        let known = if same { hello.members } else { 0 };
        if self.is_suspended(&key) {
            self.close(id, Code::Busy, "its permissions are being changed: come again");
            return Ok(());
        }
        if member.is_some() {
            // A device whose signal comes and goes has lost them, and the relay has not noticed yet:
            // the oldest give way.
            let mut others = self.sessions_of(&key);
            others.retain(|other| *other != id);
            others.sort_unstable();
            others.truncate((others.len() + 1).saturating_sub(CONNECTIONS));
            for other in others {
                self.close(other, Code::Busy, "this device has connected anew");
            }
        }
        if self.queue.is_empty() {
            self.queue = self.replica.behind().into();
        }
        let peer = self.peers.get_mut(&id).expect("the frame came from it");
        peer.actor = hello.actor;
        peer.member = member;
        if member.is_some() {
            self.tally.came(key);
        }
        (peer.catalog, peer.epoch) = (hello.catalog, hello.epoch);
        if hello.catalog == 0 {
            peer.left_out.generations = self.replica.generations().clone();
        }
        peer.software = hello.software.chars().take(SOFTWARE).collect();
        peer.receipts = hello.capabilities & fieldkeep_protocol::capability::RECEIPTS != 0;
        peer.session.enter(if member.is_some() { Phase::Open } else { Phase::Stranger });
        self.note_contact(id, hello.members);
        self.trace_session(id);
        let welcome = self.introduction()?;
        self.control(id, &Frame::Welcome(Box::new(welcome)));
        if revoked {
            self.peers.get_mut(&id).expect("the frame came from it").members = known;
            self.turn_away(id);
        } else if member.is_some() {
            self.introduce(id, known);
            self.note_returned(key)?;
        }
        Ok(())
    }

    fn introduction(&self) -> Result<Hello, StoreError> {
        let removals = self.replica.store().newest_removal()?;
        Ok(Hello {
            versions: vec![fieldkeep_protocol::VERSION],
            software: concat!("fieldkeep/", env!("CARGO_PKG_VERSION")).to_owned(),
            org: self.replica.org(),
            capabilities: fieldkeep_protocol::capability::REPORTS,
            members: self.replica.members().len(),
            members_tip: self.replica.members().tip(),
            members_sum: self.replica.members().sum().to_be_bytes(),
            epoch: self.replica.epoch(),
            catalog: self.replica.published().map_or(0, |published| published.number),
            frame_max: fieldkeep_protocol::FRAME_MAX,
            root: [0; 16],
            actor: None,
            removals: (removals > 0).then_some(removals),
        })
    }

    /// Sends a member what it lacks of the membership log, and the catalog if it has another.
    pub(super) fn introduce(&mut self, id: ConnectionId, known: u64) {
        self.tell_members(id, known);
        let Peer { catalog: held, epoch, .. } = self.peers[&id];
        let current = self.replica.published().map(|published| (published.epoch, published.number));
        // Numbers go on through epochs, but two branches of a relay may have used one twice.
        if current.is_some_and(|(of, number)| number != held || of > epoch) {
            self.tell_catalog(id);
        }
    }

    pub(super) fn members(
        &mut self,
        id: ConnectionId,
        members: &frame::Members,
    ) -> Result<(), ReplicaError> {
        let mut entries = members.entries.clone();
        let last = entries.last().cloned();
        entries.extend(last.and_then(|last| self.admission_of_keys(id, &last)));
        match self.append_members(&entries) {
            Ok(_) => {}
            Err(ReplicaError::Membership(error)) => {
                self.close(id, Code::Membership, &error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells every member what it lacks of the membership log.
    pub(super) fn announce_members(&mut self) {
        let others = self.peers.iter().filter(|(_, peer)| peer.member.is_some());
        let others: Vec<_> = others.map(|(id, peer)| (*id, peer.members)).collect();
        for (id, known) in others {
            self.tell_members(id, known);
        }
    }

    pub(super) fn tell_members(&mut self, id: ConnectionId, known: u64) {
        let entries = self.replica.members().since(known).to_vec();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.members = known + entries.len() as u64;
        }
        if !entries.is_empty() {
            self.control(id, &Frame::Members(frame::Members { base: known, entries }));
        }
    }
}
