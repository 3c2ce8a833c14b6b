//! A road between a device and a relay that takes longer: passes datagrams on after a delay, each
//! way. Loses nothing and keeps their order.

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
        let shared =
            Shared { relay, delay_micros: AtomicU64::new(0), over: AtomicBool::new(false) };
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
        let delay = Duration::from_micros(self.shared.delay_micros.load(Ordering::Relaxed));
        let _ = self.datagrams.send((Instant::now() + delay, datagram.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
