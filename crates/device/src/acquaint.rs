//! Hearing what a relay has of the membership log, and nothing else: where its key is not known yet, and
//! where this device takes other keys.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fieldkeep_link::{Connection, Event};
use fieldkeep_model::{MembershipLog, PublicKey, Signed};
use fieldkeep_protocol::frame::{Frame, Hello};
use fieldkeep_protocol::{Code, Phase, Role, Session, priority};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Settings as _, StoreError};

use crate::device::Device;
use crate::reach::reach;

/// How long a relay may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(10);
/// The setting with the key of the relay that was met last.
const MET: &str = "relay_key";

/// Why nothing was heard.
#[derive(Debug)]
pub(crate) enum Unheard {
    /// The relay ended it with that code, and why.
    Refused(Option<Code>, String),
    /// Whoever answers has nothing to say that matters here.
    Nothing,
}

/// Introduces this device, says what `answer` makes of the relay's introduction, and has `heard` look at
/// the entries that come until it has what it waits for.
pub(crate) async fn hear(
    connection: Connection,
    hello: Hello,
    mut answer: impl FnMut(&Hello) -> Result<Option<Frame>, Unheard>,
    mut heard: impl FnMut(&[Signed]) -> bool,
) -> Result<(), Unheard> {
    let (sender, mut receiver) = connection.carry(fieldkeep_link::Role::Dialer);
    let say = |frame: &Frame| {
        let _ = sender.try_send(0, priority::CONTROL, Bytes::from(frame.encode()));
    };
    let mut session = Session::new(Role::Device);
    say(&Frame::Hello(Box::new(hello)));
    let broken = |violation: fieldkeep_protocol::Violation| {
        Unheard::Refused(Some(violation.code()), violation.to_string())
    };
    let talk = async {
        loop {
            let (stream, bytes) = match receiver.recv().await {
                Event::Bytes { stream, bytes } => (stream, bytes),
                Event::Finished { .. } | Event::Writable { .. } => continue,
                Event::Closed { reason } => {
                    let code = reason.code.and_then(Code::from_number);
                    return Err(Unheard::Refused(code, reason.text));
                }
            };
            session.receive(stream, &bytes).map_err(broken)?;
            while let Some(frame) = session.next(stream).map_err(broken)? {
                if let Frame::Welcome(welcome) = &frame {
                    session.enter(Phase::Open);
                    if let Some(frame) = answer(welcome)? {
                        say(&frame);
                    }
                } else if let Frame::Members(members) = &frame {
                    if heard(&members.entries) {
                        return Ok(());
                    }
                } else if let Frame::Error(error) = frame {
                    return Err(Unheard::Refused(Some(error.code), error.text));
                }
            }
        }
    };
    let result = tokio::time::timeout(PATIENCE, talk).await.unwrap_or(Err(Unheard::Nothing));
    sender.close(Code::Done.number(), "heard");
    result
}

impl Device {
    /// Whether whoever answers under another key than the relay's may be taken for it: the relay had
    /// that key, and was never met under a later one; or the membership log that it gives says so,
    /// which is verified like any other before the key is believed.
    pub(crate) async fn is_relay_still(
        &self,
        address: SocketAddr,
        presented: &PublicKey,
    ) -> Result<bool, ReplicaError> {
        let had = {
            let engine = self.engine();
            let replica = engine.replica();
            let mut relays = replica.members().members().values().filter(|member| member.relay);
            let met = replica.store().setting(MET)?;
            relays.any(|relay| relay.has_shown(presented))
                && met.is_none_or(|met| met == presented.0)
        };
        if had {
            return Ok(true);
        }
        let reached = reach(&[address], Some(presented), &self.0.seed.tls()).await;
        let Ok((_endpoint, connection)) = reached else { return Ok(false) };
        let hello = self.engine().introduction();
        let (org, held) = (hello.org, hello.members_sum());
        let news = |welcome: &Hello| {
            let has_news = welcome.org == org && welcome.members_sum() != held;
            if has_news { Ok(None) } else { Err(Unheard::Nothing) }
        };
        let heard = hear(connection, hello, news, |entries| self.names_relay(entries, presented));
        Ok(heard.await.is_ok())
    }

    /// Whether entries extend the membership log, and a relay has that key by them: they are kept then. Its
    /// next one may be named by now, too; but a key that it was known to have had before counts no more.
    fn names_relay(&self, entries: &[Signed], key: &PublicKey) -> bool {
        let mut log = self.engine().replica().members().clone();
        let has_shown = |log: &MembershipLog| {
            log.members().values().any(|member| member.relay && member.has_shown(key))
        };
        let known = has_shown(&log);
        let sound = log.merge(entries).is_ok();
        let named = log.by_tls(key).is_some_and(|member| member.relay);
        let named = named || (!known && has_shown(&log));
        sound && named && self.learn_members(entries).is_ok()
    }

    /// Takes entries of the membership log over.
    pub(crate) fn learn_members(&self, entries: &[Signed]) -> Result<(), ReplicaError> {
        let mut engine = self.engine();
        engine.learn_members(entries)?;
        let outputs = engine.commit()?;
        self.0.deliver(&engine, outputs);
        Ok(())
    }

    /// Notes under which key the relay was met: what it had before counts no more.
    pub(crate) fn note_met(&self, key: &PublicKey) -> Result<(), StoreError> {
        let mut engine = self.engine();
        if engine.replica().store().setting(MET)?.as_deref() == Some(&key.0[..]) {
            return Ok(());
        }
        engine.replica_mut().store_mut().set(MET, &key.0)?;
        let outputs = engine.commit().map_err(|error| StoreError::Disk(error.to_string()))?;
        self.0.deliver(&engine, outputs);
        Ok(())
    }
}
