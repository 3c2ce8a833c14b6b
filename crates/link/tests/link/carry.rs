//! What the carrier promises of its streams.

use std::collections::BTreeMap;
use std::time::Duration;

use fieldkeep_link::carrier::QUEUED_MAX;
use fieldkeep_link::{CONTROL, Event, Limits, Receiver, SendError};

use crate::pair::{Pair, block, next, within};

/// Receives until a condition on the bytes of each stream holds.
async fn collect(
    receiver: &mut Receiver,
    until: impl Fn(&BTreeMap<u64, usize>, &Event) -> bool,
) -> BTreeMap<u64, usize> {
    let mut received = BTreeMap::new();
    loop {
        let event = next(receiver).await;
        match &event {
            Event::Bytes { stream, bytes } => *received.entry(*stream).or_default() += bytes.len(),
            Event::Closed { reason } => panic!("closed: {reason}"),
            Event::Finished { .. } | Event::Writable { .. } => {}
        }
        if until(&received, &event) {
            return received;
        }
    }
}

#[tokio::test]
async fn the_bytes_of_a_stream_arrive_in_order_and_whole() {
    let pair = Pair::new();
    let mut ends = pair.carry().await;
    let sent: Vec<u8> =
        (0..3_000_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 2 == 0)]).collect();
    let sender = ends.device.0.clone();
    let bytes = bytes::Bytes::from(sent.clone());
    tokio::spawn(async move {
        for start in (0..bytes.len()).step_by(30_001) {
            let end = bytes.len().min(start + 30_001);
            sender.send(9, 1, bytes.slice(start..end)).await.expect("it is open");
        }
        sender.finish(9);
    });
    let mut received = Vec::new();
    loop {
        match next(&mut ends.relay.1).await {
            Event::Bytes { stream: 1, bytes } => received.extend_from_slice(&bytes),
            Event::Finished { stream: 1 } => break,
            other @ (Event::Bytes { .. }
            | Event::Finished { .. }
            | Event::Writable { .. }
            | Event::Closed { .. }) => panic!("{other:?}"),
        }
    }
    assert!(received == sent);
}

#[tokio::test]
async fn streams_are_carried_by_priority_whatever_the_order_of_sending() {
    let pair = Pair::new();
    let mut ends = pair.carry().await;
    for stream in 1..=20_u64 {
        let priority = i32::try_from(stream).expect("it is small");
        ends.relay.0.try_send(stream, priority, block(4_000)).expect("there is room");
        ends.relay
            .0
            .try_send(stream, priority, vec![u8::try_from(stream).expect("small")].into())
            .expect("room");
        ends.relay.0.finish(stream);
    }
    let (mut order, mut last) = (Vec::new(), BTreeMap::new());
    while order.len() < 20 {
        match next(&mut ends.device.1).await {
            Event::Bytes { stream, bytes } => {
                last.insert(stream, bytes[bytes.len() - 1]);
            }
            Event::Finished { stream } => order.push(last[&stream]),
            other @ (Event::Writable { .. } | Event::Closed { .. }) => panic!("{other:?}"),
        }
    }
    assert_eq!(order, (1..=20).rev().collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_big_download_holds_back_neither_control_nor_a_more_urgent_stream() {
    const BULK: usize = 16 * 1024 * 1024;
    let pair = Pair::new();
    let mut ends = pair.carry().await;
    let bulk = ends.relay.0.clone();
    tokio::spawn(async move {
        for _ in 0..BULK / 32_768 {
            bulk.send(1, -1, block(32_768)).await.expect("it is open");
        }
        bulk.finish(1);
    });
    collect(&mut ends.device.1, |received, _| received.get(&1) > Some(&1_000_000)).await;
    ends.relay.0.try_send(CONTROL, 0, block(300)).expect("control has room");
    ends.relay.0.try_send(2, 0, block(300)).expect("the stream has room");
    // What was under way already may come first: windows and queues, not the 15 MB behind them.
    let bound = 3 * 1024 * 1024;
    let before =
        collect(&mut ends.device.1, |received, _| received.get(&CONTROL) == Some(&300)).await;
    assert!(before.get(&1).is_none_or(|&bulk| bulk < bound), "before control: {before:?}");
    if !before.contains_key(&2) {
        let before =
            collect(&mut ends.device.1, |received, _| received.get(&2) == Some(&300)).await;
        assert!(
            before.get(&1).is_none_or(|&bulk| bulk < bound),
            "before the urgent one: {before:?}"
        );
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_receive_holds_the_peer_back_and_resumes() {
    let pair = Pair::new();
    let mut ends = pair.carry().await;
    let sender = ends.device.0.clone();
    let mut accepted = 0;
    // Not a sleep: the wait ends the moment that a block is taken, and each of them is.
    while tokio::time::timeout(Duration::from_millis(300), sender.send(5, 0, block(16_384)))
        .await
        .is_ok()
    {
        accepted += 16_384;
        assert!(accepted < 1024 * 1024, "nothing holds the sender back");
    }
    let window = usize::try_from(Limits::RELAY.stream_window).expect("it is small");
    assert!(accepted <= window + QUEUED_MAX + 64 * 1024 + 2 * 16_384, "{accepted} bytes wait");
    assert!(accepted >= window, "{accepted} bytes wait");
    assert!(sender.room(5) < 16_384);
    assert!(matches!(sender.try_send(5, 0, block(16_384)), Err(SendError::Full(_))));
    sender.finish(5);
    let received =
        collect(&mut ends.relay.1, |_, event| matches!(event, Event::Finished { .. })).await;
    assert_eq!(received, BTreeMap::from([(1, accepted)]));
    assert_eq!(next(&mut ends.device.1).await, Event::Writable { stream: 5 });
}

#[tokio::test]
async fn more_streams_than_the_peer_allows_wait_for_their_turn() {
    let pair = Pair::with(Limits::DEVICE, Limits { streams: 3, ..Limits::RELAY });
    let mut ends = pair.carry().await;
    for stream in 1..=50 {
        ends.device.0.try_send(stream, 0, block(2_000)).expect("there is room");
        ends.device.0.finish(stream);
    }
    let received = collect(&mut ends.relay.1, |received, _| {
        received.len() == 50 && received.values().all(|&len| len == 2_000)
    })
    .await;
    assert_eq!(received.len(), 50);
}

#[tokio::test]
async fn a_close_tells_the_peer_why_and_ends_both_sides() {
    let pair = Pair::new();
    let mut ends = pair.carry().await;
    ends.device.0.close(12, "goodbye\u{7}");
    let Event::Closed { reason } = next(&mut ends.relay.1).await else { panic!("it is closed") };
    assert_eq!((reason.code, reason.text.as_str(), reason.by_peer), (Some(12), "goodbye", true));
    let Event::Closed { reason } = next(&mut ends.device.1).await else { panic!("it is closed") };
    assert_eq!((reason.code, reason.by_peer), (Some(12), false));
    assert_eq!(ends.device.0.try_send(1, 0, block(1)), Err(SendError::Closed));
    assert_eq!(within(ends.relay.0.send(1, 0, block(1))).await, Err(SendError::Closed));
    assert!(matches!(next(&mut ends.relay.1).await, Event::Closed { .. }), "and again");
}

#[tokio::test]
async fn who_waits_for_room_learns_of_the_end() {
    let pair = Pair::new();
    let ends = pair.carry().await;
    let sender = ends.device.0.clone();
    let waiting =
        tokio::spawn(async move { while sender.send(1, 0, block(60_000)).await.is_ok() {} });
    drop(ends.relay.1);
    within(waiting).await.expect("no panic");
}

#[tokio::test]
async fn a_dropped_receiver_closes_the_connection() {
    let pair = Pair::new();
    let mut ends = pair.carry().await;
    drop(ends.device.1);
    let Event::Closed { reason } = next(&mut ends.relay.1).await else { panic!("it is closed") };
    assert_eq!((reason.code, reason.by_peer), (Some(0), true));
}

#[tokio::test]
async fn a_vanished_peer_is_noticed() {
    let idle = Duration::from_millis(400);
    let relay = crate::pair::endpoint(2, Limits { idle, ..Limits::RELAY });
    let address = relay.local_addr().expect("it is bound");
    let elsewhere = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a second runtime");
    let device = elsewhere.spawn(async move {
        let device = crate::pair::endpoint(1, Limits::DEVICE);
        let connection = device.connect(address, &crate::pair::key(2)).await;
        (device, connection.expect("the relay answers").carry(fieldkeep_link::Role::Dialer))
    });
    let accepted = within(crate::pair::admit(&relay)).await.expect("it has a key");
    let (_sender, mut receiver) = accepted.carry(fieldkeep_link::Role::Acceptor);
    let device = within(device).await.expect("no panic");
    // Its tasks end without a word, as when the power goes.
    elsewhere.shutdown_background();
    let Event::Closed { reason } = next(&mut receiver).await else { panic!("it is closed") };
    assert_eq!((reason.code, reason.by_peer), (None, false));
    assert_eq!(reason.text, "the peer was not heard for too long");
    drop(device);
}
