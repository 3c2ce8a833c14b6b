//! The books of who brought how much, and what follows: reading goes on, waits, or the device is sent away.
//!
//! The books are pure; a lock around them is all that connections share. They know members only, so that
//! there are never more accounts than devices.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_model::PublicKey;

use super::{Holding, Limits, Pace, Rate, Recent, Refused, Report, Share, Slowed, Strangers, Use};

/// After so long without being slowed down a device counts as one that was not.
const EASED: Duration = Duration::from_secs(10);
/// A connection that would have to wait longer is refused.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who waits is looked at again after so long at most, so that nobody is slowed down beyond the grace and what is
/// told of it has happened.
const LOOK: Duration = Duration::from_secs(5);
/// Who is sent away comes back when so much of its minute is there again.
const RECOVERED: Duration = Duration::from_secs(30);

/// What came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amount {
    pub(crate) bytes: u64,
    pub(crate) changes: u64,
}

/// What follows for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It goes on.
    Go,
    /// It waits for so long.
    Wait(Duration),
    /// It has waited long enough: the device goes, and comes back after that time.
    Away(Duration),
}

/// What follows for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is served, after so long.
    After(Duration),
    /// It is not: there were too many. Another may come after that time.
    Refused(Duration),
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    /// Milliseconds UTC, for whoever reads the report.
    pub(crate) ms: i64,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), ms: crate::server::now() }
    }
}

/// The books, shared by all connections.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<Books>);

impl Throttle {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Mutex::new(Books::new(limits, Moment::now().ms)))
    }

    pub(crate) fn set(&self, limits: Limits) {
        self.books().set(limits);
    }

    pub(crate) fn limits(&self) -> Limits {
        self.books().limits.clone()
    }

    /// A member connects.
    pub(crate) fn arrives(&self, key: PublicKey) -> Arrival {
        self.books().arrives(key, Moment::now())
    }

    /// A member brought something.
    pub(crate) fn took(&self, key: PublicKey, amount: Amount) {
        self.books().took(key, amount, Moment::now());
    }

    /// Whether a member's next bytes are read.
    pub(crate) fn hold(&self, key: PublicKey) -> Hold {
        self.books().hold(key, Moment::now())
    }

    /// A member brought something beside its frames: how long more of that waits.
    pub(crate) fn pause(&self, key: PublicKey, amount: Amount) -> Duration {
        let (mut books, now) = (self.books(), Moment::now());
        books.took(key, amount, now);
        let (own, all) = books.slow_down(key, now);
        own.max(all)
    }

    /// Takes the next handshake in; how long it is to wait.
    pub(crate) fn handshake(&self) -> Duration {
        self.books().handshake(Moment::now())
    }

    /// So many strangers are connected, and so many more had to make room.
    pub(crate) fn strangers(&self, connected: usize, displaced: u64) {
        let mut books = self.books();
        books.strangers.connected = connected as u64;
        books.strangers.displaced += displaced;
    }

    pub(crate) fn report(&self, holdings: Vec<Holding>) -> Report {
        self.books().report(holdings, Moment::now())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every entry is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Books {
    limits: Limits,
    began_ms: i64,
    devices: BTreeMap<PublicKey, Account>,
    organisation: Account,
    handshakes: Pace,
    strangers: Strangers,
}

/// What somebody has used.
#[derive(Debug, Default)]
struct Account {
    bytes: Pace,
    changes: Pace,
    connections: Pace,
    /// Bytes, changes and connections of late.
    recent: [Recent; 3],
    slowed: Slowed,
    refused: Refused,
    /// Since when it has been slowed down without a break, and when it was last.
    slow: Option<(Instant, Instant)>,
}

impl Account {
    fn took(&mut self, Amount { bytes, changes }: Amount, share: &Share, now: Instant) {
        self.bytes.take(bytes, Rate::a_minute(share.bytes_a_minute), now);
        self.changes.take(changes, Rate::a_minute(share.changes_a_minute), now);
        self.recent[0].add(bytes, now);
        self.recent[1].add(changes, now);
    }

    fn wait(&self, share: &Share, now: Instant) -> Duration {
        let bytes = self.bytes.wait(Rate::a_minute(share.bytes_a_minute), now);
        bytes.max(self.changes.wait(Rate::a_minute(share.changes_a_minute), now))
    }

    fn slow_down(&mut self, wait: Duration, now: Moment) {
        let fresh =
            self.slow.is_none_or(|(_, last)| now.at.saturating_duration_since(last) > EASED);
        let since = if fresh { now.at } else { self.slow.map_or(now.at, |(since, _)| since) };
        if fresh {
            self.slowed.since_ms = Some(now.ms);
        }
        self.slow = Some((since, now.at + wait));
        self.slowed.times += 1;
        self.slowed.millis += u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.slowed.last_ms = Some(now.ms);
    }

    fn refuse(&mut self, now: Moment) {
        self.refused.sessions += 1;
        self.refused.last_ms = Some(now.ms);
    }

    fn connected(&mut self, share: &Share, now: Instant) {
        self.connections.take(1, Rate::a_minute(share.connections_a_minute), now);
        self.recent[2].add(1, now);
    }

    fn used(&self, now: Instant) -> Use {
        let over = self.slow.is_none_or(|(_, last)| now.saturating_duration_since(last) > EASED);
        let since_ms = self.slowed.since_ms.filter(|_| !over);
        let [bytes, changes, connections] = self.recent.map(|recent| recent.last_minute(now));
        Use {
            bytes,
            changes,
            connections,
            slowed: Slowed { since_ms, ..self.slowed },
            refused: self.refused,
            ..Use::default()
        }
    }
}

impl Books {
    fn new(limits: Limits, began_ms: i64) -> Self {
        Self {
            limits,
            began_ms,
            devices: BTreeMap::new(),
            organisation: Account::default(),
            handshakes: Pace::default(),
            strangers: Strangers::default(),
        }
    }

    /// Other limits: what was too much under the old ones is made up for.
    fn set(&mut self, limits: Limits) {
        if limits == self.limits {
            return;
        }
        self.limits = limits;
        for account in self.devices.values_mut().chain([&mut self.organisation]) {
            (account.bytes, account.changes) = (Pace::default(), Pace::default());
            (account.connections, account.slow) = (Pace::default(), None);
        }
        self.handshakes = Pace::default();
    }

    fn arrives(&mut self, key: PublicKey, now: Moment) -> Arrival {
        let account = self.devices.entry(key).or_default();
        let own = Rate::a_minute(self.limits.device.connections_a_minute);
        let all = Rate::a_minute(self.limits.organisation.connections_a_minute);
        let wait = account.connections.wait(own, now.at);
        let wait = wait.max(self.organisation.connections.wait(all, now.at));
        if wait > PATIENCE {
            account.refuse(now);
            self.organisation.refuse(now);
            return Arrival::Refused(wait);
        }
        account.connected(&self.limits.device, now.at);
        self.organisation.connected(&self.limits.organisation, now.at);
        if !wait.is_zero() {
            account.slow_down(wait, now);
        }
        Arrival::After(wait)
    }

    fn took(&mut self, key: PublicKey, amount: Amount, now: Moment) {
        let Limits { device, organisation, .. } = &self.limits;
        self.devices.entry(key).or_default().took(amount, device, now.at);
        self.organisation.took(amount, organisation, now.at);
    }

    /// How long a member's next bytes wait until it is looked at again: for what it brought itself, and for
    /// what all did.
    fn slow_down(&mut self, key: PublicKey, now: Moment) -> (Duration, Duration) {
        let Limits { device, organisation, .. } = &self.limits;
        let account = self.devices.entry(key).or_default();
        let look = LOOK.min(self.limits.grace());
        let own = account.wait(device, now.at).min(look);
        let all = self.organisation.wait(organisation, now.at).min(look);
        if !own.max(all).is_zero() {
            account.slow_down(own.max(all), now);
        }
        if !all.is_zero() {
            self.organisation.slow_down(all, now);
        }
        (own, all)
    }

    fn hold(&mut self, key: PublicKey, now: Moment) -> Hold {
        let (own, all) = self.slow_down(key, now);
        let wait = own.max(all);
        if wait.is_zero() {
            return Hold::Go;
        }
        let account = self.devices.entry(key).or_default();
        let since = account.slow.map_or(now.at, |(since, _)| since);
        // Who waits for others does not go for it.
        if own.is_zero() || now.at.saturating_duration_since(since) < self.limits.grace() {
            return Hold::Wait(wait);
        }
        account.slow = None;
        account.refuse(now);
        self.organisation.refuse(now);
        Hold::Away(account.wait(&self.limits.device, now.at) + RECOVERED)
    }

    fn handshake(&mut self, now: Moment) -> Duration {
        let within = Duration::from_secs(2);
        let most = self.limits.handshakes_a_second.saturating_mul(within.as_secs());
        let rate = Rate { most: Some(most), within };
        self.handshakes.take(1, rate, now.at);
        self.handshakes.wait(rate, now.at)
    }

    fn report(&self, holdings: Vec<Holding>, now: Moment) -> Report {
        let keys: Vec<PublicKey> = holdings.iter().map(|holding| holding.key).collect();
        let mut report = Report::at_rest(self.limits.clone(), holdings);
        let together = |used: &mut Use, account: &Account| {
            let (stored, refused) = (used.stored, used.refused);
            *used = account.used(now.at);
            (used.stored, used.refused) = (stored, used.refused.and(refused));
        };
        for (device, key) in report.devices.iter_mut().zip(keys) {
            if let Some(account) = self.devices.get(&key) {
                together(&mut device.used, account);
            }
        }
        together(&mut report.organisation, &self.organisation);
        Report { since_ms: Some(self.began_ms), strangers: self.strangers, ..report }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: PublicKey = PublicKey([1; 32]);
    const BEN: PublicKey = PublicKey([2; 32]);

    fn books(device: Share, organisation: Share) -> Books {
        let limits = Limits { device, organisation, grace_seconds: 20, ..Limits::default() };
        Books::new(limits, 0)
    }

    fn none() -> Share {
        Share {
            bytes_a_minute: None,
            changes_a_minute: None,
            connections_a_minute: None,
            log_bytes: None,
            file_bytes: None,
        }
    }

    fn after(begin: Instant, seconds: u64) -> Moment {
        Moment { at: begin + Duration::from_secs(seconds), ms: seconds as i64 * 1_000 }
    }

    #[test]
    fn who_brings_too_much_is_held_back_alone() {
        let mut books = books(Share { changes_a_minute: Some(60), ..none() }, none());
        let begin = Instant::now();
        let now = after(begin, 0);
        books.took(ANN, Amount { bytes: 1 << 40, changes: 60 }, now);
        assert_eq!(books.hold(ANN, now), Hold::Go);
        books.took(ANN, Amount { bytes: 0, changes: 2 }, now);
        assert_eq!(books.hold(ANN, now), Hold::Wait(Duration::from_secs(2)));
        books.took(BEN, Amount { bytes: 0, changes: 1 }, now);
        assert_eq!(books.hold(BEN, now), Hold::Go);
        assert_eq!(books.hold(ANN, after(begin, 2)), Hold::Go);
    }

    #[test]
    fn only_who_goes_on_beyond_the_grace_is_sent_away_and_told_when_to_come_back() {
        let mut books = books(Share { bytes_a_minute: Some(60), ..none() }, none());
        let begin = Instant::now();
        books.took(ANN, Amount { bytes: 60, changes: 0 }, after(begin, 0));
        for second in 0..20 {
            books.took(ANN, Amount { bytes: 1, changes: 0 }, after(begin, second));
            let held = books.hold(ANN, after(begin, second));
            assert_eq!(held, Hold::Wait(Duration::from_secs(1)), "second {second}");
        }
        books.took(ANN, Amount { bytes: 1, changes: 0 }, after(begin, 20));
        let away = Hold::Away(Duration::from_secs(31));
        assert_eq!(books.hold(ANN, after(begin, 20)), away);
        let back = after(begin, 51);
        assert_eq!(books.hold(ANN, back), Hold::Go);
        let used = books.devices[&ANN].used(back.at);
        assert_eq!((used.bytes, used.refused.sessions), (81, 1));
        assert_eq!((used.slowed.times, used.slowed.since_ms), (21, None));
        assert_eq!(used.refused.last_ms, Some(20_000));
    }

    #[test]
    fn who_owes_more_than_the_grace_is_sent_away_at_its_end_and_not_later() {
        let mut books = books(Share { bytes_a_minute: Some(60), ..none() }, none());
        let begin = Instant::now();
        books.took(ANN, Amount { bytes: 60 + 100, changes: 0 }, after(begin, 0));
        for second in [0, 5, 10, 15] {
            assert_eq!(books.hold(ANN, after(begin, second)), Hold::Wait(LOOK), "second {second}");
        }
        assert_eq!(
            books.hold(ANN, after(begin, 20)),
            Hold::Away(Duration::from_secs(80) + RECOVERED)
        );
        let slowed = books.devices[&ANN].slowed;
        assert!(slowed.millis <= 25_000, "what has happened, and no more: {slowed:?}");
    }

    #[test]
    fn a_pause_ends_a_spell_of_being_slowed_down() {
        let mut books = books(Share { bytes_a_minute: Some(60), ..none() }, none());
        let begin = Instant::now();
        books.took(ANN, Amount { bytes: 61, changes: 0 }, after(begin, 0));
        assert_eq!(books.hold(ANN, after(begin, 0)), Hold::Wait(Duration::from_secs(1)));
        for second in [30, 60, 90] {
            books.took(ANN, Amount { bytes: 31, changes: 0 }, after(begin, second));
            let held = books.hold(ANN, after(begin, second));
            assert!(matches!(held, Hold::Wait(_)), "second {second}: {held:?}");
        }
    }

    #[test]
    fn all_wait_for_what_all_brought_and_nobody_is_sent_away_for_it() {
        let mut books = books(none(), Share { bytes_a_minute: Some(60), ..none() });
        let begin = Instant::now();
        books.took(ANN, Amount { bytes: 60, changes: 0 }, after(begin, 0));
        for second in 0..60 {
            books.took(ANN, Amount { bytes: 1, changes: 0 }, after(begin, second));
            for who in [ANN, BEN] {
                let held = books.hold(who, after(begin, second));
                assert_eq!(held, Hold::Wait(Duration::from_secs(1)), "second {second}");
            }
        }
    }

    #[test]
    fn connections_wait_a_little_and_are_refused_when_there_are_far_too_many() {
        let mut books = books(Share { connections_a_minute: Some(6), ..none() }, none());
        let now = after(Instant::now(), 0);
        for _ in 0..6 {
            assert_eq!(books.arrives(ANN, now), Arrival::After(Duration::ZERO));
        }
        assert_eq!(books.arrives(ANN, now), Arrival::After(Duration::ZERO), "the last is owed");
        assert_eq!(books.arrives(ANN, now), Arrival::After(Duration::from_secs(10)));
        let refused = Arrival::Refused(Duration::from_secs(20));
        assert_eq!([books.arrives(ANN, now), books.arrives(ANN, now)], [refused, refused]);
        assert_eq!(books.arrives(BEN, now), Arrival::After(Duration::ZERO));
    }

    #[test]
    fn handshakes_beyond_two_seconds_worth_wait_their_turn() {
        let mut books = books(none(), none());
        books.limits.handshakes_a_second = 10;
        let begin = Instant::now();
        for _ in 0..20 {
            assert_eq!(books.handshake(after(begin, 0)), Duration::ZERO);
        }
        assert_eq!(books.handshake(after(begin, 0)), Duration::from_millis(100));
        assert_eq!(books.handshake(after(begin, 1)), Duration::ZERO);
    }

    #[test]
    fn the_report_tells_of_every_device_what_it_uses_and_what_is_stored_of_it() {
        let mut books = books(Share { changes_a_minute: Some(60), ..none() }, none());
        let now = after(Instant::now(), 5);
        books.took(ANN, Amount { bytes: 9, changes: 63 }, now);
        assert_eq!(books.hold(ANN, now), Hold::Wait(Duration::from_secs(3)));
        let holding = |number, key, log_bytes| Holding {
            number,
            key,
            name: format!("device {number}"),
            revoked: false,
            connected: true,
            stored: crate::limits::Stored { log_bytes, ..Default::default() },
            refused: Refused { files: 1, ..Refused::default() },
        };
        let report = books.report(vec![holding(3, ANN, 10), holding(5, BEN, 20)], now);
        let [ann, ben] = &report.devices[..] else { panic!("two devices") };
        assert_eq!((ann.number, ann.used.changes, ann.used.stored.log_bytes), (3, 63, 10));
        let slowed =
            Slowed { times: 1, millis: 3_000, since_ms: Some(5_000), last_ms: Some(5_000) };
        assert_eq!(ann.used.slowed, slowed);
        assert_eq!((ben.used.changes, ben.used.slowed), (0, Slowed::default()));
        assert_eq!(report.organisation.stored.log_bytes, 30);
        assert_eq!(report.organisation.refused.files, 2);
    }
}
