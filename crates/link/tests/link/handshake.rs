//! Who may connect, and what is said when not.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use fieldkeep_link::{BindError, DialError, Endpoint, Event, Limits, Role};

use crate::pair::{Pair, admit, endpoint, key, keys, loopback, next, within};

#[tokio::test]
async fn both_sides_learn_the_key_that_the_other_one_proved() {
    let pair = Pair::new();
    let (dialled, accepted) = pair.connect().await;
    assert_eq!(dialled.peer(), key(2));
    assert_eq!(accepted.peer(), key(1));
    assert_eq!(dialled.remote_address(), pair.relay_address());
    assert_eq!(accepted.remote_address(), pair.device.local_addr().expect("it is bound"));
}

#[tokio::test]
async fn a_relay_with_another_key_is_refused_and_both_keys_are_named() {
    let pair = Pair::new();
    let address = pair.relay_address();
    let expected = key(3);
    let (dialled, accepted) =
        within(async { tokio::join!(pair.device.connect(address, &expected), admit(&pair.relay)) })
            .await;
    let error = dialled.expect_err("the key is another one");
    assert_eq!(error, DialError::WrongKey { address, expected, presented: key(2) });
    accepted.expect_err("the device left");
}

#[tokio::test]
async fn a_silent_address_is_told_after_the_limit() {
    let device = endpoint(1, Limits { handshake: Duration::from_millis(300), ..Limits::DEVICE });
    let silent = UdpSocket::bind(loopback()).expect("loopback is free");
    let address = silent.local_addr().expect("it is bound");
    let error = within(device.connect(address, &key(2))).await.expect_err("nobody answers");
    assert_eq!(error.to_string(), format!("nobody answered at {address} within 0.3 s"));
    let default = DialError::Unreachable { address, limit: Limits::DEVICE.handshake };
    assert_eq!(default.to_string(), format!("nobody answered at {address} within 5 s"));
}

#[tokio::test]
async fn an_address_that_cannot_be_dialled_is_told_at_once() {
    let device = endpoint(1, Limits::DEVICE);
    let before = Instant::now();
    for address in ["127.0.0.1:0", "[::1]:7440"] {
        let address = address.parse().expect("an address");
        let error = device.connect(address, &key(2)).await.expect_err("it cannot be dialled");
        assert_eq!(error, DialError::Address(address));
    }
    assert!(before.elapsed() < Limits::DEVICE.handshake);
}

#[tokio::test]
async fn a_taken_port_is_told_plainly() {
    let taken = endpoint(1, Limits::RELAY);
    let address = taken.local_addr().expect("it is bound");
    let error = Endpoint::bind(address, &keys(2), Limits::RELAY).expect_err("the port is taken");
    assert!(matches!(error, BindError::InUse(port) if port == address), "{error}");
    assert!(error.to_string().contains("already"), "{error}");
    let elsewhere = "192.0.2.1:7440".parse().expect("an address");
    let error = Endpoint::bind(elsewhere, &keys(2), Limits::RELAY).expect_err("it is not ours");
    assert!(matches!(error, BindError::NotHere(_)), "{error}");
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let error = Endpoint::bind(loopback(), &keys(1), Limits::DEVICE).expect_err("no runtime");
    assert!(matches!(error, BindError::NoRuntime));
}

#[tokio::test]
async fn under_load_an_address_proves_itself_first_and_still_gets_in() {
    let pair = Pair::with(Limits::DEVICE, Limits { handshakes_before_retry: 0, ..Limits::RELAY });
    let (_, accepted) = pair.connect().await;
    assert_eq!(accepted.peer(), key(1));
}

#[tokio::test]
async fn an_overloaded_relay_says_that_it_is_busy_and_serves_the_first() {
    let pair = Pair::with(Limits::DEVICE, Limits { handshakes: 1, ..Limits::RELAY });
    let address = pair.relay_address();
    let expected = key(2);
    let first = pair.device.connect(address, &expected);
    let relay = async {
        let held = pair.relay.accept().await.expect("the first device is at the door");
        let second = tokio::select! {
            _ = pair.relay.accept() => panic!("one too many was let in"),
            second = pair.device.connect(address, &expected) => second,
        };
        assert_eq!(second.err(), Some(DialError::Busy(address)));
        held.handshake().await.expect("it has a key")
    };
    let (dialled, accepted) = within(async { tokio::join!(first, relay) }).await;
    assert_eq!(dialled.expect("the relay answers").peer(), key(2));
    assert_eq!(accepted.peer(), key(1));
}

#[tokio::test]
async fn a_closed_endpoint_tells_its_peers_and_accepts_no_more() {
    let pair = Pair::new();
    let mut ends = pair.carry().await;
    pair.relay.close(4, "maintenance");
    assert!(pair.relay.accept().await.is_none());
    let Event::Closed { reason } = next(&mut ends.device.1).await else { panic!("it is closed") };
    assert_eq!((reason.code, reason.text.as_str(), reason.by_peer), (Some(4), "maintenance", true));
    drop(ends);
    within(pair.relay.drained()).await;
}

#[tokio::test]
async fn a_connection_that_is_not_carried_can_be_closed_with_a_reason() {
    let pair = Pair::new();
    let (dialled, accepted) = pair.connect().await;
    let (_sender, mut receiver) = dialled.carry(Role::Dialer);
    accepted.close(7, "not a member");
    let Event::Closed { reason } = next(&mut receiver).await else { panic!("it is closed") };
    assert_eq!(reason.to_string(), "closed by the peer: not a member (code 7)");
}
