//! Every way a take-over can go, and what is left standing after it.

use super::*;
use crate::rules::invalidate::Selector;
use proptest::prelude::*;

const WAIT: Duration = Duration::from_secs(60);

/// Some time after the start.
const NOW: Duration = Duration::from_secs(5);

fn hello(listeners: u32) -> TakerEvent {
    TakerEvent::Heard(Message::Hello {
        version: VERSION,
        listeners,
    })
}

fn listener() -> TakerEvent {
    TakerEvent::Heard(Message::Listener(([127, 0, 0, 1], 80).into()))
}

fn purge() -> Message {
    Message::Purge {
        number: 1,
        soft: false,
        selectors: vec![Selector::All],
    }
}

fn is_given_up(action: &GiverAction, back: bool) -> bool {
    matches!(action, GiverAction::GiveUp { take_back, .. } if *take_back == back)
}

/// A giver that has come so far: 0 started, 1 lends, 2 the taker opens, 3 gone.
fn giver(steps: usize) -> Giver {
    let mut giver = Giver::new(WAIT);
    let events = [
        GiverEvent::Heard(Message::Prepared),
        GiverEvent::Lent(Ok(Sequence(7))),
        GiverEvent::Heard(Message::Ready),
    ];
    for event in events.into_iter().take(steps) {
        giver.on(event, NOW);
    }
    giver
}

/// A taker that has come so far: 0 greets, 1 prepares, 2 waits, 3 opens, 4 holds, 5 serves.
fn taker(steps: usize) -> Taker {
    let mut taker = Taker::new(WAIT);
    let events = [
        hello(0),
        TakerEvent::Prepared,
        TakerEvent::Heard(Message::Yours(Sequence(7))),
        TakerEvent::Opened,
        TakerEvent::Heard(Message::Go),
    ];
    for event in events.into_iter().take(steps) {
        taker.on(event, NOW);
    }
    taker
}

#[test]
fn two_machines_that_hear_each_other_come_to_the_end() {
    let (mut giver, mut taker) = (Giver::new(WAIT), Taker::new(WAIT));
    assert_eq!(taker.on(hello(2), NOW), TakerAction::Wait);
    assert_eq!(taker.on(listener(), NOW), TakerAction::Wait);
    assert_eq!(taker.on(listener(), NOW), TakerAction::Prepare);
    let TakerAction::Say(prepared) = taker.on(TakerEvent::Prepared, NOW) else {
        panic!("it says so");
    };
    assert_eq!(
        giver.on(GiverEvent::Heard(prepared), NOW),
        GiverAction::Lend
    );
    let GiverAction::Say(yours) = giver.on(GiverEvent::Lent(Ok(Sequence(9))), NOW) else {
        panic!("it says so");
    };
    let open = TakerAction::Open(Some(Sequence(9)));
    assert_eq!(taker.on(TakerEvent::Heard(yours), NOW), open);
    let TakerAction::Say(ready) = taker.on(TakerEvent::Opened, NOW) else {
        panic!("it says so");
    };
    assert_eq!(
        giver.on(GiverEvent::Heard(ready), NOW),
        GiverAction::HandOver
    );
    let go = TakerEvent::Heard(Message::Go);
    assert_eq!(taker.on(go, NOW), TakerAction::Serve);
}

#[test]
fn before_the_stores_are_lent_there_is_nothing_to_take_back() {
    let failed = || GiverEvent::Heard(Message::Failed("bad config".to_owned()));
    for event in [failed(), GiverEvent::Ended, GiverEvent::Stop] {
        assert!(is_given_up(&giver(0).on(event, NOW), false));
    }
    let refused = GiverEvent::Lent(Err("a disk fails".to_owned()));
    assert!(is_given_up(&giver(1).on(refused, NOW), false));
    let GiverAction::GiveUp { reason, .. } = giver(0).on(failed(), NOW) else {
        panic!("it gives up");
    };
    assert_eq!(reason, "bad config");
}

#[test]
fn while_the_taker_opens_them_the_stores_are_taken_back_whatever_goes_wrong() {
    let wrong = [
        GiverEvent::Heard(Message::Failed(String::new())),
        GiverEvent::Heard(Message::Prepared),
        GiverEvent::Ended,
        GiverEvent::Stop,
    ];
    for event in wrong {
        assert!(is_given_up(&giver(2).on(event, NOW), true));
    }
}

#[test]
fn a_taker_that_takes_too_long_is_given_up_and_not_before() {
    for (steps, back) in [(0, false), (2, true)] {
        let mut giver = giver(steps);
        let until = if steps == 0 { WAIT } else { NOW + WAIT };
        assert_eq!(giver.deadline(), Some(until));
        let early = WAIT / 2;
        assert_eq!(giver.on(GiverEvent::Tick, early), GiverAction::Wait);
        assert!(is_given_up(&giver.on(GiverEvent::Tick, NOW + WAIT), back));
        assert_eq!(giver.deadline(), None);
    }
    // Lending has bounds of its own.
    let mut lending = giver(1);
    assert_eq!(lending.deadline(), None);
    assert_eq!(
        lending.on(GiverEvent::Tick, NOW + 2 * WAIT),
        GiverAction::Wait
    );
}

#[test]
fn after_go_a_giver_never_takes_anything_back() {
    let mut gone = giver(3);
    assert_eq!(gone.deadline(), None);
    for event in [GiverEvent::Tick, GiverEvent::Stop] {
        assert_eq!(gone.on(event, NOW + 2 * WAIT), GiverAction::Wait);
    }
    let heed = GiverAction::Heed(purge());
    assert_eq!(gone.on(GiverEvent::Heard(purge()), NOW), heed);
    assert_eq!(gone.on(GiverEvent::Ended, NOW), GiverAction::BeAlone);
}

#[test]
fn a_giver_that_ends_leaves_a_taker_that_goes_on_by_itself() {
    let ended = |steps: usize| taker(steps).on(TakerEvent::Ended, NOW);
    assert_eq!(ended(0), TakerAction::Prepare);
    assert_eq!(ended(1), TakerAction::Wait);
    assert_eq!(ended(2), TakerAction::Open(None));
    assert_eq!(ended(3), TakerAction::Wait);
    assert_eq!(ended(4), TakerAction::Serve);
    assert_eq!(ended(5), TakerAction::BeAlone);

    let mut preparing = taker(1);
    preparing.on(TakerEvent::Ended, NOW);
    let open = TakerAction::Open(None);
    assert_eq!(preparing.on(TakerEvent::Prepared, NOW), open);
    assert_eq!(preparing.on(TakerEvent::Opened, NOW), TakerAction::Serve);
}

#[test]
fn a_giver_of_another_version_or_out_of_step_is_refused() {
    let other = TakerEvent::Heard(Message::Hello {
        version: VERSION + 1,
        listeners: 0,
    });
    assert!(matches!(
        Taker::new(WAIT).on(other, NOW),
        TakerAction::Fail(_)
    ));
    let go = || TakerEvent::Heard(Message::Go);
    for steps in 0..4 {
        let action = taker(steps).on(go(), NOW);
        assert!(
            matches!(action, TakerAction::Fail(_)),
            "{steps}: {action:?}"
        );
    }
}

#[test]
fn a_taker_waits_for_its_giver_so_long_and_for_itself_as_long_as_it_takes() {
    for steps in 0..6 {
        let mut taker = taker(steps);
        let waits = matches!(steps, 0 | 2 | 4);
        assert_eq!(taker.deadline().is_some(), waits, "{steps}");
        assert_eq!(taker.on(TakerEvent::Tick, NOW), TakerAction::Wait);
        let late = taker.on(TakerEvent::Tick, NOW + WAIT);
        assert_eq!(matches!(late, TakerAction::Fail(_)), waits, "{steps}");
    }
}

#[test]
fn a_purge_is_heeded_as_soon_as_the_stores_may_be_open() {
    for steps in 3..6 {
        let action = taker(steps).on(TakerEvent::Heard(purge()), NOW);
        assert_eq!(action, TakerAction::Heed(purge()));
    }
}

fn giver_events() -> impl Strategy<Value = GiverEvent> {
    prop_oneof![
        Just(GiverEvent::Heard(Message::Prepared)),
        Just(GiverEvent::Heard(Message::Ready)),
        Just(GiverEvent::Heard(Message::Go)),
        Just(GiverEvent::Heard(purge())),
        Just(GiverEvent::Lent(Ok(Sequence(1)))),
        Just(GiverEvent::Lent(Err("no".to_owned()))),
        Just(GiverEvent::Ended),
        Just(GiverEvent::Tick),
        Just(GiverEvent::Stop),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_giver_either_hands_over_once_or_gives_up_once(
        events in prop::collection::vec(giver_events(), 0..12),
    ) {
            let mut giver = Giver::new(WAIT);
        let (mut lent, mut ends) = (false, 0);
        for event in events {
            let lends = event == GiverEvent::Lent(Ok(Sequence(1)));
            match giver.on(event, NOW) {
                GiverAction::HandOver => {
                    prop_assert!(lent);
                    ends += 1;
                }
                GiverAction::GiveUp { take_back, .. } => {
                    prop_assert!(take_back || !lent, "what was lent is taken back");
                    ends += 1;
                }
                GiverAction::Say(Message::Yours(_)) => {
                    prop_assert!(lends);
                    lent = true;
                }
                GiverAction::Wait
                | GiverAction::Lend
                | GiverAction::Say(_)
                | GiverAction::Heed(_)
                | GiverAction::BeAlone => {}
            }
        }
        prop_assert!(ends <= 1);
    }
}
