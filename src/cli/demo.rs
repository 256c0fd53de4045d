//! `callpost demo`: what a newcomer runs first.

use std::io;

use serde::Serialize;

use super::args;
use super::exit::{CliError, Done};
use super::lines::Lines;
use super::out::{Out, paint, style};
use crate::demo::{DemoError, News, Setup, Summary, run};

/// What a person reads, in English or Spanish.
struct Words {
    title: &'static str,
    about: &'static str,
    keep: &'static str,
    left_over: &'static str,
    calls: &'static str,
    events: &'static str,
    lost: &'static str,
    pending: &'static str,
    wrong: &'static str,
    journal: &'static str,
    latency: &'static str,
    next: &'static str,
    spanish: bool,
}

const ENGLISH: Words = Words {
    title: "a stand-in PBX plays recorded Asterisk calls into the real agent",
    about: "Each line below is a request as it arrived: its time, its call's letter, what it says.",
    keep: "Ctrl-C ends it.",
    left_over: "deliveries left over from an earlier run go out first",
    calls: "calls",
    events: "AMI events",
    lost: "lost",
    pending: "still waiting",
    wrong: "doubled or out of order",
    journal: "on disk before it is sent: p50",
    latency: "from Asterisk's event to the request's arrival: p50",
    next: "Next: `callpost check` beside your own Asterisk; callpost.toml(5) has every key.",
    spanish: false,
};

const SPANISH: Words = Words {
    title: "una central simulada reproduce llamadas grabadas de Asterisk en el agente real",
    about: "Cada línea es una petición tal como llegó: su hora, la letra de su llamada, lo que dice.",
    keep: "Ctrl-C la termina.",
    left_over: "entregas pendientes de una ejecución anterior salen primero",
    calls: "llamadas",
    events: "eventos AMI",
    lost: "perdidas",
    pending: "en espera",
    wrong: "duplicadas o en desorden",
    journal: "en disco antes de enviarse: p50",
    latency: "del evento de Asterisk a la llegada de la petición: p50",
    next: "Ahora: `callpost check` junto a su Asterisk; callpost.toml(5) tiene todas las claves.",
    spanish: true,
};

impl Words {
    /// By `LC_ALL`, `LC_MESSAGES`, `LANG`, as setlocale(3) has it.
    fn of_locale() -> &'static Self {
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty())
            .unwrap_or_default();
        if locale.to_lowercase().starts_with("es") { &SPANISH } else { &ENGLISH }
    }
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Frame<'a> {
    Started { pbx: &'a str, to: &'a str, directory: String },
    LeftOver { deliveries: u64 },
    Scene { index: usize, name: &'a str, src_hash: &'a str },
    Summary(&'a Summary),
}

pub(super) async fn demo(args: &args::Demo) -> Result<Done, CliError> {
    let setup =
        Setup { directory: args.directory.clone(), to: args.to.clone(), keep: args.keep, speed: args.speed };
    let mut out = Out::new(args.output.json);
    let words = Words::of_locale();
    let mut show = Show { lines: Lines::new(jiff::tz::TimeZone::system()), words, keep: args.keep };
    let summary = {
        let mut tell =
            |news: News<'_>| if out.json() { value(&mut out, &news) } else { show.news(&mut out, news) };
        run(setup, &mut tell).await.map_err(explained)?
    };
    if out.json() {
        out.value(&Frame::Summary(&summary))?;
    } else {
        show.summary(&mut out, &summary)?;
    }
    Ok(if summary.is_clean() { Done::All } else { Done::Failed })
}

fn explained(error: DemoError) -> CliError {
    match error {
        DemoError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => CliError::Output(error),
        DemoError::Io(error) => CliError::failed(
            format!("failed to run the demo: {error}"),
            "see the directory's owner and free space",
        ),
        DemoError::Config(faults) => CliError::Config(faults),
        DemoError::Start(error) => CliError::failed(
            format!("failed to start the agent: {error}"),
            "give another --directory, or none",
        ),
        DemoError::Journal(error) => CliError::failed(error.to_string(), "see the directory's free space"),
        DemoError::NoLogin | DemoError::Ended => {
            CliError::failed(error.to_string(), "run it with -v and report what it says")
        }
    }
}

fn value(out: &mut Out, news: &News<'_>) -> io::Result<()> {
    match news {
        News::Started { pbx, to, directory, .. } => {
            out.value(&Frame::Started { pbx, to, directory: directory.display().to_string() })
        }
        News::LeftOver(deliveries) => out.value(&Frame::LeftOver { deliveries: *deliveries }),
        News::Begins { index, scene, src_hash, .. } => {
            out.value(&Frame::Scene { index: *index, name: scene.name, src_hash })
        }
        News::Delivered(received) => out.value(received),
    }
}

struct Show {
    lines: Lines,
    words: &'static Words,
    keep: bool,
}

impl Show {
    fn news(&mut self, out: &mut Out, news: News<'_>) -> io::Result<()> {
        match news {
            News::Started { pbx, to, directory, zone } => {
                self.lines = Lines::new(zone);
                self.intro(out, &pbx, &to, &directory.display().to_string())
            }
            News::LeftOver(count) => out.line(format!("\n{count} {}", self.words.left_over)),
            News::Begins { index, scene, src_hash, creates } => {
                self.lines.call(&src_hash, index);
                for (initiated, source) in &creates {
                    self.lines.create(initiated, source, index);
                }
                if scene.name == "sms" {
                    self.lines.text(index);
                }
                let caption = if self.words.spanish { scene.spanish } else { scene.english };
                let now = paint(style::DIM, self.lines.time(crate::clock::now()));
                out.line(format!("{now}  {}  {}", Lines::letter(index), paint(style::BOLD, caption)))
            }
            News::Delivered(received) => out.line(self.lines.line(received)),
        }
    }

    fn intro(&self, out: &mut Out, pbx: &str, to: &str, directory: &str) -> io::Result<()> {
        out.line(format!("{} {}", paint(style::BOLD, "callpost demo:"), self.words.title))?;
        let (pbx, to) = (paint(style::NAME, pbx), paint(style::NAME, to));
        let dim = |text: &str| paint(style::DIM, text);
        out.line(format!(
            "\n  Asterisk {pbx} {} callpost {} {directory} {} webhook, NiMbox {to}\n",
            dim("─AMI→"),
            dim("→"),
            dim("─HTTP→"),
        ))?;
        out.line(dim(self.words.about))?;
        if self.keep {
            out.line(dim(self.words.keep))?;
        }
        out.line("")
    }

    fn summary(&self, out: &mut Out, summary: &Summary) -> io::Result<()> {
        let words = self.words;
        let wrong = summary.conflicts + summary.out_of_order;
        let verdict = |count: u64, what: &str| {
            paint(if count == 0 { style::GOOD.bold() } else { style::BAD.bold() }, format!("{count} {what}"))
        };
        out.line(format!(
            "\n{} {}, {} {} → {} webhooks, {} creates: {}, {}",
            summary.calls,
            words.calls,
            summary.events,
            words.events,
            summary.webhooks,
            summary.creates,
            verdict(summary.lost, words.lost),
            verdict(wrong, words.wrong),
        ))?;
        if summary.pending > 0 {
            out.line(paint(style::WARN, format!("{} {}", summary.pending, words.pending)))?;
        }
        out.line(format!("{} {}", words.journal, millis(summary.commit_p50)))?;
        if let (Some(p50), Some(p99)) = (summary.latency_p50, summary.latency_p99) {
            out.line(format!("{} {}, p99 {}", words.latency, millis(p50), millis(p99)))?;
        }
        out.line(format!("\n{}", paint(style::DIM, words.next)))
    }
}

/// `1.3 ms`.
fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}
