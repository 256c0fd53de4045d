//! What `[calls]` changes, by the recordings of the scenarios it is about.

use std::sync::LazyLock;

use callpost::config::{Config, Environment, load_text};

use crate::expect::Tolerance;
use crate::replay::{CONFIG, Run, faults, feed, fixture, replay_in};

/// Every option other than it is by default.
pub const OPTIONS: &str = "
[calls]
report_unreached = false
internal_caller_leg = true
conference_legs = true
";

/// What must come out is in `fixtures/expected/NAME.calls.txt`; where there is none, nothing changes.
pub const SCENARIOS: &[&str] = &[
    "s01_in_answered_caller_hangs",
    "y02_unregistered_ext",
    "x03_busy_app",
    "s08_out_answered",
    "s13_internal",
    "x05_echo_feature_code",
    "l05_sequential_dial",
    "l01_followme_local_optimized",
    "l03_local_n_not_optimized",
    "s26_pickup",
    "s21_attended_by_callee",
    "s22_attended_blonde",
    "c01_confbridge",
    "y07_dual_redirect_to_conf",
    "o01_click2call_answered",
    "n113_paging",
];

fn config() -> &'static Config {
    static LOADED: LazyLock<Config> = LazyLock::new(|| {
        let loaded = load_text(&format!("{CONFIG}{OPTIONS}"), "options.toml", &Environment::default());
        loaded.unwrap_or_else(|faults| panic!("{faults:?}")).config
    });
    &LOADED
}

#[test]
fn legs_of_conferences_and_internal_callers_come_out_as_expected() {
    let mut all = String::new();
    for directory in ["22", "16"] {
        for name in SCENARIOS {
            let run: Run = replay_in(config(), &feed(&fixture(directory, name)));
            let faults = faults("calls", name, &run, Tolerance { duration: 1, start: 1 });
            if !faults.is_empty() {
                all += &format!("{directory}/{name}\n{faults}");
            }
        }
    }
    assert!(all.is_empty(), "\n{all}");
}
