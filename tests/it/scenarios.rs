//! The calls of the scenario catalogue, played on a real Asterisk.
//!
//! A scenario only plays: devices, carriers and AMI actions, with what each of
//! them must see on the way. What callpost makes of it is compared elsewhere, so
//! whoever runs a scenario can ask afterwards what was delivered.
//!
//! `Lab::begin` starts each one early in a second, and the pauses end away from
//! whole seconds, so that durations and start times in CDRs are the same in
//! every run.

use std::pin::Pin;

use crate::lab::{Lab, answers, ends, pause, rings};
use crate::sip::{Call, State};

/// A scenario under the name its recordings and expectations have.
pub struct Scenario {
    /// As in the catalogue.
    pub name: &'static str,
    /// Plays it to the end of its last call.
    pub play: for<'a> fn(&'a Lab) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        /// All of them, in the catalogue's order.
        pub const SCENARIOS: &[Scenario] = &[
            $(Scenario { name: stringify!($name), play: |lab| Box::pin($name(lab)) }),*
        ];
    };
}

scenarios! {
    s01_in_answered_caller_hangs
    s02_in_answered_callee_hangs
    s03_in_caller_cancels_ringing
    y09_cancel_immediately
    s04_in_noanswer_timeout
    s05_in_busy
    s06_in_declined
    s07_in_unavail480
    y02_unregistered_ext
    y03_nonexistent_endpoint
    x02_congestion_app
    x03_busy_app
    x01_invalid_did
    v01_voicemail_after_noanswer

    s08_out_answered
    y01_out_early_media_183
    s09_out_busy
    s10_out_404
    s11_out_503
    s12_out_caller_cancels

    s13_internal
    x05_echo_feature_code
    l05_sequential_dial

    s14_hold_unhold
    s15_hangup_while_held
    y08_both_hold
    s16_dtmf

    s17_forked_answered
    s18_forked_busy_cancel
    l04_ringgroup_local_inbound
    l14_ringgroup_local_rtp_callee_hangs
    l01_followme_local_optimized
    l11_followme_local_optimized_rtp
    l02_followme_external_answers
    l03_local_n_not_optimized
    l06_302_forward
    s26_pickup

    s19_blind_by_callee
    s20_blind_target_noanswer_abandon
    s23_blind_by_caller_outbound
    s24_blind_dtmf_feature
    s21_attended_by_callee
    s22_attended_blonde
    s25_atxfer_dtmf_feature
    y10_blind_to_external
    y11_blind_to_external_fails
    y12_blind_to_invalid_ext
    s27_park_retrieve
    s28_park_timeout_comeback
    s29_park_giveup
    c01_confbridge
    y07_dual_redirect_to_conf

    q01_queue_answered_caller_hangs
    q02_queue_answered_agent_hangs
    q03_queue_abandon_ringing
    q04_queue_timeout
    q05_queue_agents_busy_abandon
    q09_queue_all_paused_abandon
    q07_queue_linear_rna_then_answer
    q08_queue_agent_blind_transfer
    q06_queue_local_member_n
    y04_queue_local_optimized
    y05_queue_exit_with_key
    y06_queue_joinempty

    i01_ivr_then_ext
    i02_ivr_hangup
    x04_forkcdr

    p01_ami_blindtransfer
    p02_ami_redirect_caller_leg
    p03_ami_redirect_callee_leg
    p04_ami_atxfer
    p05_ami_hangup
    p06_ami_redirect_while_ringing
    o01_click2call_answered
    o02_click2call_agent_noanswer
    o03_click2call_agent_busy
    o04_click2call_via_local
    o05_originate_app

    m01_userevent
    m02_sip_message
    z01_injection_message
    z02_cidnum_percent
    z03_latin1_name

    r01_resync

    n84_trunk_failover
    n85_all_trunks_fail
    n86_call_waiting
    n103_originate_with_own_id
    n107_quotes_in_a_name
    n108_withheld_number
    n111_numbers
    n112_two_calls_of_one_phone
    n113_paging
    n114_chanspy
}

/// The scenarios this process is to play: those whose names begin as `CALLPOST_SCENARIO` says, and of
/// them every second one with `CALLPOST_SHARE=1/2`, the others with `2/2`. An Asterisk plays one at a
/// time and is mostly idle, so several of them, a share each, save time.
pub fn chosen() -> impl Iterator<Item = &'static Scenario> {
    let begins = std::env::var("CALLPOST_SCENARIO").unwrap_or_default();
    let share = std::env::var("CALLPOST_SHARE").unwrap_or("1/1".into());
    let parse = || share.split_once('/').and_then(|(n, of)| Some((n.parse().ok()?, of.parse().ok()?)));
    let (n, of): (usize, usize) = parse().expect("CALLPOST_SHARE is like 1/2");
    assert!((1..=of).contains(&n), "CALLPOST_SHARE is like 1/2");
    let named = SCENARIOS.iter().filter(move |scenario| scenario.name.starts_with(&begins));
    named.skip(n - 1).step_by(of)
}

/// These, in the catalogue's order; in a process that plays a part of the scenarios, those of them
/// that begin as it says.
pub fn named(names: &'static [&'static str]) -> impl Iterator<Item = &'static Scenario> {
    for name in names {
        assert!(SCENARIOS.iter().any(|scenario| scenario.name == *name), "there is no scenario {name}");
    }
    let begins = std::env::var("CALLPOST_SCENARIO").unwrap_or_default();
    let wanted =
        move |scenario: &&Scenario| names.contains(&scenario.name) && scenario.name.starts_with(&begins);
    SCENARIOS.iter().filter(wanted)
}

/// The outside caller of most scenarios; of the others only "trunk" is known.
const CALLER: &[u8] = b"<sip:584141234567@127.0.0.1>";

/// What a user dials to reach the outside.
const OUTSIDE: &str = "92125551234";

// --- steps that many scenarios share -----------------------------------------

/// An outside caller who gives only the carrier's name reaches Ana.
async fn ana_answers(lab: &Lab) -> (Call, Call) {
    let outside = lab.trunk.call("5551000").await;
    let ana = answers(&lab.ana, 0.5).await;
    outside.becomes(State::Up).await;
    (outside, ana)
}

/// The same with the caller's number.
async fn ana_answers_caller(lab: &Lab) -> (Call, Call) {
    let outside = lab.trunk.call_for(CALLER, "5551000").await;
    let ana = answers(&lab.ana, 0.5).await;
    outside.becomes(State::Up).await;
    (outside, ana)
}

/// Ana's first call was handed on and her channel is gone.
async fn ana_left(lab: &Lab, ana: &Call) {
    lab.hangups("1001", 1).await;
    ana.let_go().await;
}

// --- A. basic inbound ----------------------------------------------------------

async fn s01_in_answered_caller_hangs(lab: &Lab) {
    let outside = lab.trunk.call("5551000").await;
    let ana = answers(&lab.ana, 1.0).await;
    outside.becomes(State::Up).await;
    pause(2.3).await;
    ends(&outside, &ana).await;
}

async fn s02_in_answered_callee_hangs(lab: &Lab) {
    let outside = lab.trunk.call("5551000").await;
    let ana = answers(&lab.ana, 1.0).await;
    outside.becomes(State::Up).await;
    pause(2.3).await;
    ends(&ana, &outside).await;
}

async fn s03_in_caller_cancels_ringing(lab: &Lab) {
    let outside = lab.trunk.call("5551000").await;
    let ana = rings(&lab.ana).await;
    outside.becomes(State::Ringing).await;
    pause(1.5).await;
    outside.cancel().await;
    ana.becomes(State::Over).await;
}

async fn y09_cancel_immediately(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5551000").await;
    let ana = lab.ana.next_call().await;
    outside.cancel().await;
    ana.becomes(State::Over).await;
}

async fn s04_in_noanswer_timeout(lab: &Lab) {
    let outside = lab.trunk.call("5551000").await;
    let ana = rings(&lab.ana).await;
    ana.becomes(State::Over).await;
    outside.becomes(State::Refused(603)).await;
}

async fn s05_in_busy(lab: &Lab) {
    let outside = lab.trunk.call("5551000").await;
    lab.ana.next_call().await.refuse(486).await;
    outside.becomes(State::Refused(486)).await;
}

async fn s06_in_declined(lab: &Lab) {
    let outside = lab.trunk.call("5551000").await;
    let ana = rings(&lab.ana).await;
    pause(1.3).await;
    ana.refuse(603).await;
    outside.becomes(State::Refused(403)).await;
}

async fn s07_in_unavail480(lab: &Lab) {
    let outside = lab.trunk.call("5551000").await;
    lab.ana.next_call().await.refuse(480).await;
    outside.becomes(State::Refused(480)).await;
}

async fn y02_unregistered_ext(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5551004").await;
    outside.becomes(State::Refused(404)).await;
}

async fn y03_nonexistent_endpoint(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5551999").await;
    outside.becomes(State::Refused(404)).await;
}

async fn x02_congestion_app(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5558000").await;
    outside.becomes(State::Refused(503)).await;
}

async fn x03_busy_app(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5559000").await;
    outside.becomes(State::Refused(486)).await;
}

async fn x01_invalid_did(lab: &Lab) {
    let outside = lab.trunk.call("5557777").await;
    outside.becomes(State::Refused(404)).await;
}

async fn v01_voicemail_after_noanswer(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5551001").await;
    let ana = rings(&lab.ana).await;
    ana.becomes(State::Over).await;
    outside.becomes(State::Up).await;
    pause(4.4).await;
    outside.hang_up().await;
}

// --- B. basic outbound -----------------------------------------------------------

async fn s08_out_answered(lab: &Lab) {
    let ana = lab.ana.call(OUTSIDE).await;
    let outside = answers(&lab.trunk, 1.0).await;
    ana.becomes(State::Up).await;
    pause(1.4).await;
    ends(&ana, &outside).await;
}

async fn y01_out_early_media_183(lab: &Lab) {
    let ana = lab.ana.call(OUTSIDE).await;
    let outside = lab.trunk.next_call().await;
    outside.progress().await;
    ana.becomes(State::Progress).await;
    pause(2.0).await;
    outside.answer().await;
    ana.becomes(State::Up).await;
    pause(1.4).await;
    ends(&ana, &outside).await;
}

async fn s09_out_busy(lab: &Lab) {
    let ana = lab.ana.call(OUTSIDE).await;
    let outside = rings(&lab.trunk).await;
    ana.becomes(State::Ringing).await;
    pause(0.5).await;
    outside.refuse(486).await;
    ana.becomes(State::Refused(486)).await;
}

async fn s10_out_404(lab: &Lab) {
    let ana = lab.ana.call(OUTSIDE).await;
    lab.trunk.next_call().await.refuse(404).await;
    ana.becomes(State::Refused(404)).await;
}

async fn s11_out_503(lab: &Lab) {
    let ana = lab.ana.call(OUTSIDE).await;
    lab.trunk.next_call().await.refuse(503).await;
    ana.becomes(State::Refused(503)).await;
}

async fn s12_out_caller_cancels(lab: &Lab) {
    let ana = lab.ana.call(OUTSIDE).await;
    let outside = rings(&lab.trunk).await;
    ana.becomes(State::Ringing).await;
    pause(2.3).await;
    ana.cancel().await;
    outside.becomes(State::Over).await;
}

// --- C. internal, feature codes ----------------------------------------------------

async fn s13_internal(lab: &Lab) {
    let ana = lab.ana.call("1002").await;
    let beto = answers(&lab.beto, 1.0).await;
    ana.becomes(State::Up).await;
    pause(1.4).await;
    ends(&ana, &beto).await;
}

async fn x05_echo_feature_code(lab: &Lab) {
    let ana = lab.ana.call("*43").await;
    ana.becomes(State::Up).await;
    ana.becomes(State::Over).await;
}

async fn l05_sequential_dial(lab: &Lab) {
    let carla = lab.carla.call("603").await;
    let ana = rings(&lab.ana).await;
    ana.becomes(State::Over).await;
    let beto = answers(&lab.beto, 1.0).await;
    carla.becomes(State::Up).await;
    pause(1.4).await;
    ends(&carla, &beto).await;
}

// --- D. while a call is up -----------------------------------------------------------

async fn s14_hold_unhold(lab: &Lab) {
    let (outside, ana) = ana_answers(lab).await;
    pause(1.0).await;
    ana.hold().await;
    lab.event("Hold", &[]).await;
    pause(2.0).await;
    ana.unhold().await;
    lab.event("Unhold", &[]).await;
    pause(1.0).await;
    ends(&outside, &ana).await;
}

async fn s15_hangup_while_held(lab: &Lab) {
    let (outside, ana) = ana_answers(lab).await;
    pause(1.0).await;
    ana.hold().await;
    lab.event("Hold", &[]).await;
    pause(1.0).await;
    ends(&ana, &outside).await;
}

async fn y08_both_hold(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.0).await;
    ana.hold().await;
    pause(0.5).await;
    outside.hold().await;
    pause(1.0).await;
    ana.unhold().await;
    pause(0.5).await;
    outside.unhold().await;
    pause(0.8).await;
    ends(&outside, &ana).await;
}

async fn s16_dtmf(lab: &Lab) {
    let (outside, ana) = ana_answers(lab).await;
    pause(0.5).await;
    outside.press("12#").await;
    ana.press("5").await;
    let played = [("Digit", "5"), ("Direction", "Sent")];
    lab.event("DTMFEnd", &played).await;
    pause(1.1).await;
    ends(&outside, &ana).await;
}

// --- E. forks, ring groups, follow-me, Local channels --------------------------------

async fn s17_forked_answered(lab: &Lab) {
    let outside = lab.trunk.call("5553000").await;
    let ana = rings(&lab.ana).await;
    let beto = answers(&lab.beto, 0.5).await;
    ana.becomes(State::Over).await;
    pause(1.7).await;
    ends(&outside, &beto).await;
}

async fn s18_forked_busy_cancel(lab: &Lab) {
    let outside = lab.trunk.call("5553000").await;
    lab.ana.next_call().await.refuse(486).await;
    let beto = rings(&lab.beto).await;
    outside.becomes(State::Ringing).await;
    pause(1.5).await;
    outside.cancel().await;
    beto.becomes(State::Over).await;
}

/// A ring group of Local channels; Ana answers.
async fn local_ring_group(lab: &Lab) -> (Call, Call) {
    let outside = lab.trunk.call_for(CALLER, "5555000").await;
    let beto = rings(&lab.beto).await;
    let ana = answers(&lab.ana, 1.0).await;
    outside.becomes(State::Up).await;
    beto.becomes(State::Over).await;
    (outside, ana)
}

async fn l04_ringgroup_local_inbound(lab: &Lab) {
    let (outside, ana) = local_ring_group(lab).await;
    pause(1.5).await;
    ends(&outside, &ana).await;
}

async fn l14_ringgroup_local_rtp_callee_hangs(lab: &Lab) {
    let (outside, ana) = local_ring_group(lab).await;
    outside.talk();
    ana.talk();
    lab.event("LocalOptimizationEnd", &[]).await;
    pause(1.4).await;
    ends(&ana, &outside).await;
}

async fn l01_followme_local_optimized(lab: &Lab) {
    let beto = lab.beto.call("601").await;
    let mobile = rings(&lab.trunk).await;
    let ana = answers(&lab.ana, 1.0).await;
    beto.becomes(State::Up).await;
    mobile.becomes(State::Over).await;
    pause(1.4).await;
    ends(&beto, &ana).await;
}

async fn l11_followme_local_optimized_rtp(lab: &Lab) {
    let beto = lab.beto.call("601").await;
    let mobile = rings(&lab.trunk).await;
    let ana = answers(&lab.ana, 1.0).await;
    beto.becomes(State::Up).await;
    mobile.becomes(State::Over).await;
    beto.talk();
    ana.talk();
    lab.event("LocalOptimizationEnd", &[]).await;
    pause(1.4).await;
    ends(&beto, &ana).await;
}

async fn l02_followme_external_answers(lab: &Lab) {
    let beto = lab.beto.call("601").await;
    let ana = rings(&lab.ana).await;
    let mobile = answers(&lab.trunk, 1.0).await;
    beto.becomes(State::Up).await;
    ana.becomes(State::Over).await;
    pause(1.4).await;
    ends(&beto, &mobile).await;
}

async fn l03_local_n_not_optimized(lab: &Lab) {
    let beto = lab.beto.call("602").await;
    let ana = answers(&lab.ana, 1.0).await;
    beto.becomes(State::Up).await;
    pause(1.4).await;
    ends(&beto, &ana).await;
}

async fn l06_302_forward(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5551000").await;
    lab.ana.next_call().await.forward("1002").await;
    let beto = answers(&lab.beto, 0.5).await;
    outside.becomes(State::Up).await;
    pause(1.2).await;
    ends(&outside, &beto).await;
}

async fn s26_pickup(lab: &Lab) {
    let outside = lab.trunk.call("5551000").await;
    let ana = rings(&lab.ana).await;
    pause(1.2).await;
    let beto = lab.beto.call("*8").await;
    beto.becomes(State::Up).await;
    outside.becomes(State::Up).await;
    ana.becomes(State::Over).await;
    pause(1.7).await;
    ends(&outside, &beto).await;
}

// --- F. transfers, parking, conference -------------------------------------------------

async fn s19_blind_by_callee(lab: &Lab) {
    let (outside, ana) = ana_answers(lab).await;
    pause(1.0).await;
    assert_eq!(ana.transfer("1002").await, 202);
    let beto = answers(&lab.beto, 0.5).await;
    ana_left(lab, &ana).await;
    pause(2.0).await;
    ends(&outside, &beto).await;
}

async fn s20_blind_target_noanswer_abandon(lab: &Lab) {
    let (outside, ana) = ana_answers(lab).await;
    pause(1.0).await;
    assert_eq!(ana.transfer("1002").await, 202);
    let beto = rings(&lab.beto).await;
    ana_left(lab, &ana).await;
    pause(2.3).await;
    ends(&outside, &beto).await;
}

async fn s23_blind_by_caller_outbound(lab: &Lab) {
    let ana = lab.ana.call(OUTSIDE).await;
    let outside = answers(&lab.trunk, 0.5).await;
    ana.becomes(State::Up).await;
    pause(1.0).await;
    assert_eq!(ana.transfer("1002").await, 202);
    let beto = answers(&lab.beto, 0.5).await;
    ana_left(lab, &ana).await;
    pause(2.0).await;
    ends(&outside, &beto).await;
}

/// Ana transfers by a feature code: Asterisk asks her for the number first.
async fn ana_dials_feature(lab: &Lab, ana: &Call, code: &str) {
    pause(0.8).await;
    ana.press(code).await;
    lab.event("Hold", &[]).await;
    pause(0.7).await;
    ana.press("1002").await;
}

async fn s24_blind_dtmf_feature(lab: &Lab) {
    let (outside, ana) = ana_answers(lab).await;
    ana_dials_feature(lab, &ana, "#1").await;
    let beto = answers(&lab.beto, 0.5).await;
    ana_left(lab, &ana).await;
    pause(3.8).await;
    ends(&outside, &beto).await;
}

async fn s21_attended_by_callee(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.0).await;
    ana.hold().await;
    pause(0.5).await;
    let consult = lab.ana.call("1002").await;
    let beto = answers(&lab.beto, 0.5).await;
    consult.becomes(State::Up).await;
    pause(1.2).await;
    assert_eq!(ana.transfer_to(&consult).await, 202);
    lab.hangups("1001", 2).await;
    ana.let_go().await;
    consult.let_go().await;
    pause(2.4).await;
    ends(&outside, &beto).await;
}

async fn s22_attended_blonde(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.0).await;
    ana.hold().await;
    pause(0.5).await;
    let consult = lab.ana.call("1002").await;
    let beto = rings(&lab.beto).await;
    consult.becomes(State::Ringing).await;
    pause(1.2).await;
    assert_eq!(ana.transfer_to(&consult).await, 202);
    lab.hangups("1001", 2).await;
    ana.let_go().await;
    pause(1.2).await;
    beto.answer().await;
    pause(1.5).await;
    ends(&outside, &beto).await;
}

async fn s25_atxfer_dtmf_feature(lab: &Lab) {
    let (outside, ana) = ana_answers(lab).await;
    ana_dials_feature(lab, &ana, "*2").await;
    let beto = answers(&lab.beto, 0.5).await;
    pause(4.6).await;
    ana.hang_up().await;
    lab.event("AttendedTransfer", &[("Result", "Success")]).await;
    pause(1.8).await;
    ends(&outside, &beto).await;
}

/// A caller whom Ana sends out again; gives the new outside call.
async fn sent_out_again(lab: &Lab) -> (Call, Call) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.0).await;
    assert_eq!(ana.transfer("92125559999").await, 202);
    let target = rings(&lab.trunk).await;
    ana_left(lab, &ana).await;
    pause(0.5).await;
    (outside, target)
}

async fn y10_blind_to_external(lab: &Lab) {
    let (outside, target) = sent_out_again(lab).await;
    target.answer().await;
    pause(2.7).await;
    ends(&outside, &target).await;
}

async fn y11_blind_to_external_fails(lab: &Lab) {
    let (outside, target) = sent_out_again(lab).await;
    target.refuse(503).await;
    outside.becomes(State::Over).await;
}

async fn y12_blind_to_invalid_ext(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.0).await;
    // Accepted; that there is no such extension comes in a NOTIFY.
    assert_eq!(ana.transfer("7777").await, 202);
    pause(1.8).await;
    ends(&outside, &ana).await;
}

/// Ana parks the caller, whose new place is 701.
async fn parked(lab: &Lab) -> (Call, Call) {
    let (outside, ana) = ana_answers(lab).await;
    pause(0.8).await;
    assert_eq!(ana.transfer("700").await, 202);
    lab.event("ParkedCall", &[("ParkingSpace", "701")]).await;
    (outside, ana)
}

async fn s27_park_retrieve(lab: &Lab) {
    let (outside, ana) = parked(lab).await;
    pause(1.8).await;
    let beto = lab.beto.call("701").await;
    beto.becomes(State::Up).await;
    lab.event("UnParkedCall", &[]).await;
    pause(1.4).await;
    ends(&outside, &beto).await;
    ana_left(lab, &ana).await;
}

async fn s28_park_timeout_comeback(lab: &Lab) {
    let (outside, ana) = parked(lab).await;
    ana_left(lab, &ana).await;
    let again = answers(&lab.ana, 0.5).await;
    pause(2.2).await;
    ends(&outside, &again).await;
}

async fn s29_park_giveup(lab: &Lab) {
    let (outside, ana) = parked(lab).await;
    pause(1.7).await;
    outside.hang_up().await;
    ana_left(lab, &ana).await;
}

async fn c01_confbridge(lab: &Lab) {
    let mut members = Vec::new();
    for phone in [&lab.ana, &lab.beto, &lab.carla] {
        let member = phone.call("800").await;
        member.becomes(State::Up).await;
        pause(0.5).await;
        members.push(member);
    }
    pause(0.5).await;
    for member in members {
        member.hang_up().await;
        pause(0.5).await;
    }
}

async fn y07_dual_redirect_to_conf(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.8).await;
    let (trunk_leg, ana_leg) = (lab.channel("trunk").await, lab.channel("1001").await);
    lab.action(&[
        ("Action", "Redirect"),
        ("Channel", &trunk_leg),
        ("Context", "from-internal"),
        ("Exten", "800"),
        ("Priority", "1"),
        ("ExtraChannel", &ana_leg),
        ("ExtraContext", "from-internal"),
        ("ExtraExten", "800"),
        ("ExtraPriority", "1"),
    ])
    .await;
    lab.event("ConfbridgeJoin", &[("Channel", &trunk_leg)]).await;
    lab.event("ConfbridgeJoin", &[("Channel", &ana_leg)]).await;
    pause(2.2).await;
    outside.hang_up().await;
    pause(0.7).await;
    ana.hang_up().await;
}

// --- G. queues ----------------------------------------------------------------------

/// A caller waits in the queue "support", both agents ring.
async fn support_rings(lab: &Lab) -> (Call, Call, Call) {
    let outside = lab.trunk.call_for(CALLER, "5552000").await;
    let (ana, beto) = (rings(&lab.ana).await, rings(&lab.beto).await);
    (outside, ana, beto)
}

/// Ana takes a caller of the queue "support".
async fn support_answers(lab: &Lab, after: f64) -> (Call, Call) {
    let (outside, ana, beto) = support_rings(lab).await;
    pause(after).await;
    ana.answer().await;
    beto.becomes(State::Over).await;
    (outside, ana)
}

async fn q01_queue_answered_caller_hangs(lab: &Lab) {
    let (outside, ana) = support_answers(lab, 2.0).await;
    pause(1.4).await;
    ends(&outside, &ana).await;
}

async fn q02_queue_answered_agent_hangs(lab: &Lab) {
    let (outside, ana) = support_answers(lab, 2.0).await;
    pause(2.3).await;
    ends(&ana, &outside).await;
}

async fn q03_queue_abandon_ringing(lab: &Lab) {
    let (outside, ana, beto) = support_rings(lab).await;
    pause(2.4).await;
    outside.hang_up().await;
    ana.becomes(State::Over).await;
    beto.becomes(State::Over).await;
}

async fn q04_queue_timeout(lab: &Lab) {
    let (outside, ana, beto) = support_rings(lab).await;
    ana.becomes(State::Over).await;
    beto.becomes(State::Over).await;
    let (ana, beto) = (rings(&lab.ana).await, rings(&lab.beto).await);
    ana.becomes(State::Over).await;
    beto.becomes(State::Over).await;
    outside.becomes(State::Over).await;
}

async fn q05_queue_agents_busy_abandon(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5552000").await;
    for _ in 0..4 {
        lab.ana.next_call().await.refuse(486).await;
        lab.beto.next_call().await.refuse(486).await;
    }
    pause(0.3).await;
    outside.hang_up().await;
}

async fn q09_queue_all_paused_abandon(lab: &Lab) {
    for action in ["pause", "unpause"] {
        for agent in ["PJSIP/1001", "PJSIP/1002"] {
            lab.command(&format!("queue {action} member {agent} queue support")).await;
        }
        if action == "pause" {
            let outside = lab.trunk.call_for(CALLER, "5552000").await;
            outside.becomes(State::Up).await;
            pause(2.8).await;
            outside.hang_up().await;
            lab.event("Hangup", &[]).await;
        }
    }
}

async fn q07_queue_linear_rna_then_answer(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5552002").await;
    let ana = rings(&lab.ana).await;
    ana.becomes(State::Over).await;
    let beto = answers(&lab.beto, 1.0).await;
    outside.becomes(State::Up).await;
    pause(2.4).await;
    ends(&outside, &beto).await;
}

async fn q08_queue_agent_blind_transfer(lab: &Lab) {
    let (outside, ana) = support_answers(lab, 1.0).await;
    pause(1.4).await;
    assert_eq!(ana.transfer("1003").await, 202);
    let carla = answers(&lab.carla, 0.5).await;
    ana_left(lab, &ana).await;
    pause(1.8).await;
    ends(&outside, &carla).await;
}

async fn q06_queue_local_member_n(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5552001").await;
    let ana = answers(&lab.ana, 1.0).await;
    pause(2.4).await;
    ends(&outside, &ana).await;
}

async fn y04_queue_local_optimized(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5552003").await;
    outside.talk();
    let ana = answers(&lab.ana, 1.0).await;
    ana.talk();
    lab.event("LocalOptimizationEnd", &[]).await;
    pause(2.6).await;
    ends(&outside, &ana).await;
}

async fn y05_queue_exit_with_key(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5552003").await;
    outside.talk();
    let ana = rings(&lab.ana).await;
    pause(2.0).await;
    outside.press("0").await;
    ana.becomes(State::Over).await;
    let carla = answers(&lab.carla, 0.5).await;
    pause(2.6).await;
    ends(&outside, &carla).await;
}

async fn y06_queue_joinempty(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5552004").await;
    let ana = answers(&lab.ana, 0.5).await;
    pause(2.3).await;
    ends(&outside, &ana).await;
}

// --- H. menus and others ----------------------------------------------------------------

async fn i01_ivr_then_ext(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5554000").await;
    outside.becomes(State::Up).await;
    outside.talk();
    pause(1.0).await;
    outside.press("1").await;
    let ana = answers(&lab.ana, 0.5).await;
    pause(2.7).await;
    ends(&outside, &ana).await;
}

async fn i02_ivr_hangup(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5554000").await;
    outside.becomes(State::Up).await;
    pause(1.4).await;
    outside.hang_up().await;
}

async fn x04_forkcdr(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5557000").await;
    let ana = answers(&lab.ana, 0.5).await;
    pause(2.2).await;
    ends(&outside, &ana).await;
}

// --- I. actions of callpost itself ---------------------------------------------------------

/// Redirects a leg to Beto.
async fn redirect(lab: &Lab, channel: &str) {
    lab.action(&[
        ("Action", "Redirect"),
        ("Channel", channel),
        ("Context", "from-internal"),
        ("Exten", "1002"),
        ("Priority", "1"),
    ])
    .await;
}

async fn p01_ami_blindtransfer(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.6).await;
    let leg = lab.channel("1001").await;
    lab.action(&[
        ("Action", "BlindTransfer"),
        ("Channel", &leg),
        ("Context", "from-internal"),
        ("Exten", "1002"),
    ])
    .await;
    let beto = answers(&lab.beto, 0.5).await;
    ana_left(lab, &ana).await;
    pause(2.2).await;
    ends(&outside, &beto).await;
}

async fn p02_ami_redirect_caller_leg(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.6).await;
    redirect(lab, &lab.channel("trunk").await).await;
    let beto = answers(&lab.beto, 0.5).await;
    ana_left(lab, &ana).await;
    pause(2.2).await;
    ends(&outside, &beto).await;
}

async fn p03_ami_redirect_callee_leg(lab: &Lab) {
    let ana = lab.ana.call(OUTSIDE).await;
    let outside = answers(&lab.trunk, 0.5).await;
    ana.becomes(State::Up).await;
    pause(1.6).await;
    redirect(lab, &lab.channel("trunk").await).await;
    let beto = answers(&lab.beto, 0.5).await;
    ana_left(lab, &ana).await;
    pause(2.2).await;
    ends(&outside, &beto).await;
}

async fn p04_ami_atxfer(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    outside.talk();
    ana.talk();
    pause(1.6).await;
    let leg = lab.channel("1001").await;
    lab.action(&[("Action", "Atxfer"), ("Channel", &leg), ("Context", "from-internal"), ("Exten", "1002")])
        .await;
    let beto = answers(&lab.beto, 0.5).await;
    pause(2.2).await;
    ana.hang_up().await;
    lab.event("AttendedTransfer", &[("Result", "Success")]).await;
    beto.talk();
    lab.event("LocalOptimizationEnd", &[]).await;
    pause(1.5).await;
    ends(&outside, &beto).await;
}

async fn p05_ami_hangup(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.7).await;
    let leg = lab.channel("trunk").await;
    lab.action(&[("Action", "Hangup"), ("Channel", &leg)]).await;
    outside.becomes(State::Over).await;
    ana.becomes(State::Over).await;
}

async fn p06_ami_redirect_while_ringing(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5551000").await;
    let ana = rings(&lab.ana).await;
    outside.becomes(State::Ringing).await;
    pause(1.3).await;
    redirect(lab, &lab.channel("trunk").await).await;
    ana.becomes(State::Over).await;
    let beto = rings(&lab.beto).await;
    pause(2.3).await;
    outside.cancel().await;
    beto.becomes(State::Over).await;
}

/// Click to call: Asterisk rings a user first, then dials for them.
async fn click(lab: &Lab, channel: &str) {
    lab.action(&[
        ("Action", "Originate"),
        ("Channel", channel),
        ("Context", "from-internal"),
        ("Exten", OUTSIDE),
        ("Priority", "1"),
        ("CallerID", "2125551234"),
        ("Timeout", "3000"),
        ("Async", "true"),
    ])
    .await;
}

async fn o01_click2call_answered(lab: &Lab) {
    click(lab, "PJSIP/1001").await;
    let ana = answers(&lab.ana, 1.0).await;
    let outside = answers(&lab.trunk, 1.0).await;
    pause(3.3).await;
    ends(&ana, &outside).await;
}

async fn o02_click2call_agent_noanswer(lab: &Lab) {
    click(lab, "PJSIP/1001").await;
    rings(&lab.ana).await.becomes(State::Over).await;
    lab.event("OriginateResponse", &[("Reason", "3")]).await;
}

async fn o03_click2call_agent_busy(lab: &Lab) {
    click(lab, "PJSIP/1001").await;
    lab.ana.next_call().await.refuse(486).await;
    lab.event("OriginateResponse", &[("Response", "Failure")]).await;
}

async fn o04_click2call_via_local(lab: &Lab) {
    click(lab, "Local/1001@from-internal").await;
    let ana = answers(&lab.ana, 1.0).await;
    ana.talk();
    let outside = answers(&lab.trunk, 1.0).await;
    outside.talk();
    lab.event("LocalOptimizationEnd", &[]).await;
    pause(3.3).await;
    ends(&ana, &outside).await;
}

async fn o05_originate_app(lab: &Lab) {
    lab.action(&[
        ("Action", "Originate"),
        ("Channel", "PJSIP/1001"),
        ("Application", "Wait"),
        ("Data", "2"),
        ("Async", "true"),
    ])
    .await;
    let ana = answers(&lab.ana, 0.5).await;
    ana.becomes(State::Over).await;
}

// --- J. messages, hostile input ---------------------------------------------------------------

async fn m01_userevent(lab: &Lab) {
    let outside = lab.trunk.call_for(CALLER, "5556000").await;
    outside.becomes(State::Refused(603)).await;
}

async fn m02_sip_message(lab: &Lab) {
    let text = "hola, señor: ¿qué tal?\nlinea2";
    assert_eq!(lab.ana.message("1002", text).await, 202);
}

async fn z01_injection_message(lab: &Lab) {
    let text = "hola\r\n\r\nEvent: Hangup\r\nPrivilege: call,all\r\nChannel: PJSIP/1001-00000001\r\n\
                Uniqueid: 1.1\r\nCause: 16\r\n\r\nEvent: Evil\r\nx: y";
    assert_eq!(lab.trunk.message("1002", text).await, 202);
}

async fn z02_cidnum_percent(lab: &Lab) {
    let caller = b"<sip:12%0d%0aEvent:%20Evil@127.0.0.1>";
    let outside = lab.trunk.call_for(caller, "5554000").await;
    outside.becomes(State::Up).await;
    pause(0.6).await;
    outside.hang_up().await;
}

async fn z03_latin1_name(lab: &Lab) {
    let caller = b"\"Jos\xe9 Mu\xf1oz\" <sip:584140000000@127.0.0.1>";
    let outside = lab.trunk.call_for(caller, "5554000").await;
    outside.becomes(State::Up).await;
    pause(0.6).await;
    outside.hang_up().await;
}

// --- K. an agent that comes late ---------------------------------------------------------------

async fn r01_resync(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(1.0).await;
    let waiting = lab.trunk.call_for(CALLER, "5552000").await;
    // Ana is taken, so the queue rings Beto alone.
    let beto = rings(&lab.beto).await;
    pause(3.8).await;
    ends(&outside, &ana).await;
    waiting.hang_up().await;
    beto.becomes(State::Over).await;
}

// --- L. more, by their numbers in the catalogue --------------------------------------------------

/// What a user dials when a second carrier stands in for the first.
const TWO_CARRIERS: &str = "92125550084";

async fn n84_trunk_failover(lab: &Lab) {
    let ana = lab.ana.call(TWO_CARRIERS).await;
    lab.trunk.next_call().await.refuse(503).await;
    let outside = answers(&lab.trunk2, 1.0).await;
    ana.becomes(State::Up).await;
    pause(1.4).await;
    ends(&ana, &outside).await;
}

async fn n85_all_trunks_fail(lab: &Lab) {
    let ana = lab.ana.call(TWO_CARRIERS).await;
    lab.trunk.next_call().await.refuse(503).await;
    lab.trunk2.next_call().await.refuse(503).await;
    ana.becomes(State::Refused(503)).await;
}

async fn n86_call_waiting(lab: &Lab) {
    let first = lab.trunk.call_for(CALLER, "5551000").await;
    let ana = rings(&lab.ana).await;
    let second = lab.trunk.call_for(b"<sip:584240000001@127.0.0.1>", "5551000").await;
    let knocking = rings(&lab.ana).await;
    second.becomes(State::Ringing).await;
    pause(0.5).await;
    ana.answer().await;
    pause(1.0).await;
    second.cancel().await;
    knocking.becomes(State::Over).await;
    pause(0.8).await;
    ends(&first, &ana).await;
}

/// A program that clicks to call may name the channels itself: such an id says nothing of time.
async fn n103_originate_with_own_id(lab: &Lab) {
    lab.action(&[
        ("Action", "Originate"),
        ("Channel", "PJSIP/1001"),
        ("Context", "from-internal"),
        ("Exten", OUTSIDE),
        ("Priority", "1"),
        ("CallerID", "1001"),
        ("ChannelId", "abc-1"),
        ("OtherChannelId", "abc-2"),
        ("Async", "true"),
    ])
    .await;
    let ana = answers(&lab.ana, 1.0).await;
    let outside = answers(&lab.trunk, 1.0).await;
    pause(1.3).await;
    ends(&ana, &outside).await;
}

async fn n107_quotes_in_a_name(lab: &Lab) {
    let caller = "\"Empresa \\\"X\\\", C.A.\\\\ñ?\" <sip:584141234567@127.0.0.1>";
    let outside = lab.trunk.call_for(caller.as_bytes(), "5551000").await;
    let ana = answers(&lab.ana, 0.5).await;
    outside.becomes(State::Up).await;
    pause(0.9).await;
    ends(&outside, &ana).await;
}

async fn n111_numbers(lab: &Lab) {
    // a local number after the 9, and one that is too short to be told
    for number in ["95551234", "912"] {
        let ana = lab.ana.call(number).await;
        let outside = answers(&lab.trunk, 0.3).await;
        ana.becomes(State::Up).await;
        pause(0.4).await;
        ends(&ana, &outside).await;
    }
}

async fn n108_withheld_number(lab: &Lab) {
    let caller = b"\"Anonymous\" <sip:anonymous@anonymous.invalid>";
    let outside = lab.trunk.call_for(caller, "5551000").await;
    let ana = answers(&lab.ana, 0.5).await;
    outside.becomes(State::Up).await;
    pause(0.9).await;
    ends(&outside, &ana).await;
}

async fn n112_two_calls_of_one_phone(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    pause(0.5).await;
    ana.hold().await;
    let second = lab.ana.call(OUTSIDE).await;
    let target = answers(&lab.trunk, 0.5).await;
    second.becomes(State::Up).await;
    // The phone mixes the three by itself; Asterisk cannot know.
    ana.unhold().await;
    pause(1.0).await;
    ends(&outside, &ana).await;
    ends(&second, &target).await;
}

async fn n113_paging(lab: &Lab) {
    let ana = lab.ana.call("604").await;
    let mut paged = Vec::new();
    for phone in [&lab.beto, &lab.carla] {
        let call = phone.next_call().await;
        call.answer().await;
        paged.push(call);
    }
    ana.becomes(State::Up).await;
    pause(1.5).await;
    ana.hang_up().await;
    for call in paged {
        call.becomes(State::Over).await;
    }
}

async fn n114_chanspy(lab: &Lab) {
    let (outside, ana) = ana_answers_caller(lab).await;
    for call in [&outside, &ana] {
        call.talk();
    }
    let beto = lab.beto.call("*22").await;
    beto.becomes(State::Up).await;
    beto.talk();
    lab.event("ChanSpyStart", &[]).await;
    pause(0.8).await;
    beto.hang_up().await;
    lab.event("ChanSpyStop", &[]).await;
    pause(0.5).await;
    ends(&outside, &ana).await;
}
