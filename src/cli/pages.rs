//! What packaging/ holds of the commands and keys, made from them: man pages and completions. They are
//! committed, and compared here; CALLPOST_BLESS=1 writes them anew.
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::args::Cli;

const MORE: &str = include_str!("../../packaging/man/callpost.8.in");
const EVERY_KEY: &str = include_str!("../../packaging/callpost.toml");

fn is_committed(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
    if std::env::var_os("CALLPOST_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        committed == text,
        "packaging/{name} is old: CALLPOST_BLESS=1 cargo test --lib pages\n{differs:?}"
    );
}

fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

#[test]
fn completions_are_those_of_the_commands() {
    for (shell, name) in
        [(Shell::Bash, "callpost.bash"), (Shell::Zsh, "_callpost"), (Shell::Fish, "callpost.fish")]
    {
        let mut text = Vec::new();
        generate(shell, &mut Cli::command(), "callpost", &mut text);
        is_committed(&format!("completions/{name}"), &String::from_utf8(text).unwrap());
    }
}

#[test]
fn the_man_page_has_every_command_and_option() {
    let command = command();
    let man = Man::new(command.clone()).section("8").manual("callpost").source("callpost").date("");
    let mut head = Vec::new();
    man.render_title(&mut head).unwrap();
    man.render_name_section(&mut head).unwrap();
    let mut text = plain(head);
    text += ".SH SYNOPSIS\n\\fBcallpost\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR ...\n.SH DESCRIPTION\n";
    text += "Gets calls out of an Asterisk PBX and into the systems where people work: follows them on the manager\n\
             interface, writes each change to a journal, and delivers it to a NiMbox and to webhooks. The agent is\n\
             \\fBrun\\fR; the other commands look at it, or work without one.\n";
    text += &section(&man, ".SH OPTIONS");
    text += ".SH COMMANDS\n";
    for sub in command.get_subcommands() {
        text += &described(sub, "callpost");
    }
    text += MORE;
    is_committed("man/callpost.8", &text);
}

/// A command with its options, and the commands below it.
fn described(command: &Command, above: &str) -> String {
    let name = format!("{above} {}", command.get_name());
    let mut usage = command.clone().disable_help_flag(true);
    let usage = usage.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(".SS {}\n{}.\n", escaped(&usage).replace('"', ""), escaped(&about));
    if command.get_subcommands().next().is_none() {
        text += &section(&Man::new(command.clone().disable_help_flag(true)), "");
    }
    for sub in command.get_subcommands() {
        text += &described(sub, &name);
    }
    text
}

/// The options' section under another heading, without those that every command takes.
fn section(man: &Man, heading: &str) -> String {
    let mut rendered = Vec::new();
    man.render_options_section(&mut rendered).unwrap();
    let rendered = plain(rendered);
    let body = rendered.strip_prefix(".SH OPTIONS\n").unwrap_or(&rendered);
    let global = ["\\-\\-config\\fR", "\\-\\-verbose\\fR", "\\-\\-help\\fR"];
    let paragraphs = body.split(".TP\n").filter(|text| !text.is_empty());
    let own = paragraphs.filter(|text| !heading.is_empty() || !global.iter().any(|name| text.contains(name)));
    let body: String = own.map(|text| format!(".TP\n{text}")).collect();
    if heading.is_empty() || body.is_empty() { body } else { format!("{heading}\n{body}") }
}

/// Without what each rendering begins with.
fn plain(rendered: Vec<u8>) -> String {
    let text = String::from_utf8(rendered).unwrap();
    let lines =
        text.lines().filter(|line| !line.starts_with(".ie \\n(.g") && !line.starts_with(".el .ds Aq"));
    lines
        .map(|line| line.replace("\\*(Aq", "'").trim_end().to_owned() + "\n")
        .collect::<String>()
        .replace(" \"\" ", " ")
}

#[test]
fn the_page_of_the_configuration_says_what_the_example_says() {
    is_committed("man/callpost.toml.5", &configuration_page());
}

/// From the example with every key: its comments are the page's text.
fn configuration_page() -> String {
    let mut page = format!(
        ".TH callpost.toml 5 \"\" \"callpost {}\" \"callpost\"\n.SH NAME\ncallpost.toml \\- configuration of callpost\n.SH DESCRIPTION\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut comment = Vec::new();
    let mut keys = Vec::new();
    page += "Every key, with its default, or with an example where it has none.\n.PP\n";
    // its first paragraph is about the example itself
    let (_, text) = EVERY_KEY.split_once("\n#\n").unwrap();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix('#') else {
            // a blank line: what was said stands for itself
            key_group(&mut page, &mut comment, &mut keys);
            prose(&mut page, &mut comment);
            continue;
        };
        if rest.starts_with('[') {
            key_group(&mut page, &mut comment, &mut keys);
            page += &format!(".SH {}\n", escaped(rest));
            prose(&mut page, &mut comment);
        } else if rest
            .split_once(" = ")
            .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        {
            let mut value = rest.to_owned();
            while value.ends_with(['[', ',']) || value.ends_with("},") {
                let Some(next) = lines.next_if(|next| next.starts_with("#    ") || *next == "#]") else {
                    break;
                };
                value = format!("{value} {}", next.trim_start_matches('#').trim());
            }
            keys.push(value.replace(", ]", " ]"));
        } else {
            key_group(&mut page, &mut comment, &mut keys);
            comment.push(rest.strip_prefix(' ').unwrap_or(rest).to_owned());
        }
    }
    key_group(&mut page, &mut comment, &mut keys);
    page + ".SH SEE ALSO\ncallpost(8)\n"
}

/// Keys that stand together share the comment before them.
fn key_group(page: &mut String, comment: &mut Vec<String>, keys: &mut Vec<String>) {
    for (n, key) in keys.drain(..).enumerate() {
        let (name, value) = key.split_once(" = ").unwrap_or((&key, ""));
        *page += &format!(
            ".{}\n\\fB{}\\fR = {}\n",
            if n == 0 { "TP" } else { "TQ" },
            escaped(name),
            escaped(value)
        );
        if n == 0 && comment.is_empty() {
            comment.push("\\&".to_owned());
        }
    }
    if page.ends_with('\n')
        && !comment.is_empty()
        && page.lines().last().is_some_and(|l| l.starts_with("\\fB"))
    {
        *page += &lines_of(comment);
        comment.clear();
    }
}

fn prose(page: &mut String, comment: &mut Vec<String>) {
    if !comment.is_empty() {
        *page += &lines_of(comment);
        page.push_str(".PP\n");
        comment.clear();
    }
    if page.ends_with(".PP\n.PP\n") {
        page.truncate(page.len() - 4);
    }
}

/// Indented lines keep their form.
fn lines_of(comment: &[String]) -> String {
    let mut text = String::new();
    for line in comment {
        if line == "\\&" {
            text += "\\&\n";
        } else if line.is_empty() {
            text += ".PP\n";
        } else if let Some(line) = line.strip_prefix("  ") {
            text += &format!(".br\n{}\n", escaped(line));
        } else {
            text += &format!("{}\n", escaped(line));
        }
    }
    text
}

/// As roff(7) wants text.
fn escaped(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('^', "\\(ha")
        .replace('~', "\\(ti");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
