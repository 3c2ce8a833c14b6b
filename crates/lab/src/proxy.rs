//! A road between a device and a relay that takes longer: passes datagrams on after a delay, each
//! way, and keeps their order. Loses none unless it is asked to lose some or to break.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How often a thread looks whether the proxy is gone.
const LOOK: Duration = Duration::from_millis(100);
/// The longest datagram.
const DATAGRAM: usize = 65_536;

/// A proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    relay: SocketAddr,
    delay_micros: AtomicU64,
    /// One datagram in so many is lost; none if 0.
    loss: AtomicU64,
    /// Bytes that still pass before the road breaks.
    left: AtomicU64,
    /// Datagrams that still come before it breaks: the last one does not pass.
    datagrams: AtomicU64,
    passed: AtomicU64,
    over: AtomicBool,
}

impl Proxy {
    /// Passes what comes to [`Proxy::address`] on to a relay on this machine, and its answers back.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn start(relay: SocketAddr) -> io::Result<Self> {
        let front = Arc::new(socket()?);
        let address = front.local_addr()?;
        let shared = Shared {
            relay,
            delay_micros: AtomicU64::new(0),
            loss: AtomicU64::new(0),
            left: AtomicU64::new(u64::MAX),
            datagrams: AtomicU64::new(u64::MAX),
            passed: AtomicU64::new(0),
            over: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || listen(&front, &shared)
        });
        Ok(Self { address, shared })
    }

    /// Where devices are to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Delays every datagram that comes from now on, each way.
    pub fn delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.shared.delay_micros.store(micros, Ordering::Relaxed);
    }

    /// Loses one datagram in so many from now on, chosen by a fixed rule; none if 0.
    pub fn lose_one_in(&self, datagrams: u64) {
        self.shared.loss.store(datagrams, Ordering::Relaxed);
    }

    /// Breaks after so many more bytes of datagrams, both ways together: nothing passes then.
    pub fn break_after(&self, bytes: u64) {
        self.shared.left.store(bytes, Ordering::Relaxed);
    }

    /// Breaks after so many more datagrams, both ways together: nothing passes then.
    pub fn break_after_datagrams(&self, datagrams: u64) {
        self.shared.datagrams.store(datagrams.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether it is broken: something came that did not pass.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        let Shared { left, datagrams, .. } = &*self.shared;
        left.load(Ordering::Relaxed) == 0 || datagrams.load(Ordering::Relaxed) == 0
    }

    /// Passes everything again.
    pub fn mend(&self) {
        self.break_after(u64::MAX);
        self.break_after_datagrams(u64::MAX);
    }

    /// Bytes of datagrams that passed so far, both ways together.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

/// Takes what devices send, each over a socket of its own to the relay.
fn listen(front: &Arc<UdpSocket>, shared: &Arc<Shared>) {
    let mut devices: HashMap<SocketAddr, Road> = HashMap::new();
    let mut datagram = vec![0; DATAGRAM];
    while !shared.over.load(Ordering::Relaxed) {
        let Ok((length, device)) = front.recv_from(&mut datagram) else { continue };
        let road = match devices.entry(device) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(fresh) => {
                let Ok(back) = socket().map(Arc::new) else { return };
                let answers = Road::to(Arc::clone(front), device, shared);
                let road = Road::to(Arc::clone(&back), shared.relay, shared);
                let shared = Arc::clone(shared);
                thread::spawn(move || answer(&back, &answers, &shared));
                fresh.insert(road)
            }
        };
        road.send(&datagram[..length]);
    }
}

/// Takes what the relay answers to one device.
fn answer(back: &UdpSocket, road: &Road, shared: &Shared) {
    let mut datagram = vec![0; DATAGRAM];
    while !shared.over.load(Ordering::Relaxed) {
        if let Ok(length) = back.recv(&mut datagram) {
            road.send(&datagram[..length]);
        }
    }
}

impl Shared {
    /// Whether a datagram passes; counts it if it does.
    fn passes(&self, datagram: &[u8]) -> bool {
        let loss = self.loss.load(Ordering::Relaxed);
        if loss > 0 && fate(datagram).is_multiple_of(loss) {
            return false;
        }
        let length = datagram.len() as u64;
        // Nobody who asks for a break leaves room for a part of a datagram.
        let passes = has_room(&self.left, length) && has_room(&self.datagrams, 1);
        if passes {
            self.passed.fetch_add(length, Ordering::Relaxed);
        }
        passes
    }
}

/// Takes so much of what is left, if that is bounded; whether more than that was.
fn has_room(left: &AtomicU64, takes: u64) -> bool {
    let take = |left: u64| if left == u64::MAX { None } else { Some(left.saturating_sub(takes)) };
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    before.is_err() || before.is_ok_and(|left| left > takes)
}

/// A number that follows from a datagram's last bytes, which are encrypted and so as good as dice.
fn fate(datagram: &[u8]) -> u64 {
    let last = datagram.iter().rev().take(8);
    last.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// One way to one address.
struct Road {
    datagrams: mpsc::Sender<(Instant, Vec<u8>)>,
    shared: Arc<Shared>,
}

impl Road {
    fn to(socket: Arc<UdpSocket>, address: SocketAddr, shared: &Arc<Shared>) -> Self {
        let (datagrams, waiting) = mpsc::channel::<(Instant, Vec<u8>)>();
        thread::spawn(move || {
            for (due, datagram) in waiting {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // One that is lost is sent again by those who speak.
                let _ = socket.send_to(&datagram, address);
            }
        });
        Self { datagrams, shared: Arc::clone(shared) }
    }

    fn send(&self, datagram: &[u8]) {
        if !self.shared.passes(datagram) {
            return;
        }
        let delay = Duration::from_micros(self.shared.delay_micros.load(Ordering::Relaxed));
        let _ = self.datagrams.send((Instant::now() + delay, datagram.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_road_passes_nothing_until_it_is_mended() {
        let relay = socket().expect("a socket");
        let proxy = Proxy::start(relay.local_addr().expect("it is bound")).expect("a socket");
        let device = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        relay.set_read_timeout(Some(Duration::from_secs(10))).expect("it is set");
        proxy.break_after(8);
        let mut bytes = [0; 16];
        for word in [b"first", b"other", b"third"] {
            device.send_to(word, proxy.address()).expect("it is sent");
        }
        assert_eq!(relay.recv(&mut bytes).expect("it arrives"), 5);
        while !proxy.is_broken() {
            std::thread::yield_now();
        }
        assert_eq!(proxy.passed(), 5);
        proxy.mend();
        device.send_to(b"whole", proxy.address()).expect("it is sent");
        let length = relay.recv(&mut bytes).expect("it arrives");
        assert!(["third", "whole"].contains(&std::str::from_utf8(&bytes[..length]).expect("text")));
    }

    #[test]
    fn a_road_that_breaks_after_some_datagrams_passes_so_many() {
        let relay = socket().expect("a socket");
        let proxy = Proxy::start(relay.local_addr().expect("it is bound")).expect("a socket");
        let device = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        proxy.break_after_datagrams(2);
        for word in ["one", "two", "three", "four"] {
            device.send_to(word.as_bytes(), proxy.address()).expect("it is sent");
        }
        while !proxy.is_broken() {
            std::thread::yield_now();
        }
        assert_eq!(proxy.passed(), 6);
    }

    #[test]
    fn a_datagram_and_its_answer_take_the_delay_each_way() {
        let relay = socket().expect("a socket");
        let proxy = Proxy::start(relay.local_addr().expect("it is bound")).expect("a socket");
        let device = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        device.set_read_timeout(Some(Duration::from_secs(10))).expect("it is set");
        relay.set_read_timeout(Some(Duration::from_secs(10))).expect("it is set");
        proxy.delay(Duration::from_millis(20));
        let begin = Instant::now();
        device.send_to(b"hello", proxy.address()).expect("it is sent");
        let mut bytes = [0; 16];
        let (length, from) = relay.recv_from(&mut bytes).expect("it arrives");
        assert_eq!(&bytes[..length], b"hello");
        assert!(begin.elapsed() >= Duration::from_millis(20));
        relay.send_to(b"welcome", from).expect("it is sent");
        let length = device.recv(&mut bytes).expect("it arrives");
        assert_eq!(&bytes[..length], b"welcome");
        assert!(begin.elapsed() >= Duration::from_millis(40));
    }
}
