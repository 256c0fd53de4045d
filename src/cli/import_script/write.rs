//! What was found, as a configuration: for review, with the line of the script beside each value.

use std::fmt::Write as _;

use jiff::Zoned;

use super::find::Settings;

/// A secret and the name of the file that it goes to; the configuration names the file alone.
pub(super) struct Secret {
    pub file: &'static str,
    pub line: usize,
    pub text: String,
}

/// The configuration's text.
pub(super) struct Written {
    pub text: String,
    pub secrets: Vec<Secret>,
}

/// `script`: the file's name, for the heading; `now` becomes `[cdr] since`.
pub(super) fn write(settings: &Settings, script: &str, now: &Zoned) -> Written {
    let mut page = Page { text: String::new(), secrets: Vec::new() };
    page.line(format!(
        "# Made by `callpost import-script` from {} on {}. Read it",
        one_line(script),
        now.date()
    ));
    page.line("# before it is used; `(line N)` is the script's line that a value comes from.");
    page.line("");
    if settings.review.0.is_empty() {
        page.line("# Everything in the script was recognised.");
    } else {
        page.line("# TO REVIEW: what could not be taken over, by the script's line");
        for (line, what) in &settings.review.0 {
            page.line(format!("#   line {line}: {}", one_line(what)));
        }
    }
    page.line("");
    page.line("# The script did not know the PBX. With [ami] these are needed:");
    page.line("#[pbx]");
    page.line("#name = \"hq\"                # goes into every id, so choose it once");
    page.line("#trunks = [\"PJSIP/trunk\"]   # outside lines, by the beginning of their channels' names");
    page.line("#[ami]");
    page.line("#address = \"127.0.0.1:5038\"");
    page.line("#username = \"callpost\"");
    page.line("#secret_file = \"ami-secret\"");
    page.store(settings, now);
    page.numbers(settings);
    page.link(settings);
    page.nimbox(settings);
    Written { text: page.text, secrets: page.secrets }
}

struct Page {
    text: String,
    secrets: Vec<Secret>,
}

impl Page {
    fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    fn secret(&mut self, file: &'static str, line: usize, text: &str) {
        self.secrets.push(Secret { file, line, text: text.to_owned() });
    }

    fn store(&mut self, settings: &Settings, now: &Zoned) {
        self.line("");
        self.line("[cdr]");
        self.line(
            "# The script has sent what is older than this; it is never sent again on its own, because",
        );
        self.line("# some keys differ. `backfill` of that time wants mode = \"raw\" in the sink below.");
        self.line(format!("since = {}", now.strftime("%Y-%m-%dT%H:%M:%S%:z")));
        if let (Some((hours, _)), Some((days, _))) = (settings.hours, settings.days) {
            self.line(format!("# The script looked back {hours} hours, and {days} days with -full."));
        }
        if let Some((source, line)) = &settings.source {
            if source.password().is_some() {
                self.line(format!("source_file = \"cdr-source\"   # (line {line})"));
                self.secret("cdr-source", *line, source.as_str());
            } else {
                self.line(format!("source = {}   # (line {line})", quoted(source.as_str())));
            }
        }
        if let Some((table, line)) = &settings.table {
            self.line(format!("table = {}   # (line {line})", quoted(table)));
        }
    }

    fn numbers(&mut self, settings: &Settings) {
        self.line("");
        self.line("[numbers]");
        match settings.min_length {
            Some((length, line)) => self.line(format!("min_length = {length}   # (line {line})")),
            None => self.line("min_length = 7   # REVIEW: the script's own was not found"),
        }
        if settings.rules.is_empty() {
            self.line("rules = []   # REVIEW: no conversion of numbers was recognised");
            return;
        }
        self.line("rules = [");
        for (pattern, replace) in &settings.rules {
            self.line(format!("    {{ match = '{pattern}', replace = '{replace}' }},"));
        }
        self.line("]");
    }

    fn link(&mut self, settings: &Settings) {
        let Some((link, line)) = &settings.link else { return };
        self.line("");
        self.line("[recordings]");
        self.line(format!("url = {}   # (line {line})", quoted(link)));
    }

    fn nimbox(&mut self, settings: &Settings) {
        self.line("");
        let (Some((base, line)), Some((token, token_line))) = (&settings.base, &settings.token) else {
            self.line(
                "# REVIEW: the script's NiMbox, or its token, was not recognised. Fill in what is missing:",
            );
            self.line("#[[nimbox]]");
            self.line("#name = \"crm\"");
            let base = settings.base.as_ref().map_or("https://nimbox.example.com", |(base, _)| base.as_str());
            self.line(format!("#url = {}", quoted(base)));
            self.line("#token_file = \"nimbox-token\"");
            return;
        };
        self.line("[[nimbox]]");
        self.line("name = \"crm\"");
        self.line(format!("url = {}   # (line {line})", quoted(base)));
        if base.starts_with("http://") {
            self.line(
                "allow_http = true   # as the script: everybody on the way can read it; use https if you can",
            );
        }
        if !settings.unchecked_tls.is_empty() {
            let lines: Vec<_> = settings.unchecked_tls.iter().map(usize::to_string).collect();
            self.line(format!(
                "# The script did not check the certificate (line {}); callpost does. If it",
                lines.join(", ")
            ));
            self.line("# is NiMbox's own: ca_file = \"/etc/callpost/nimbox-ca.pem\", or a pin.");
        }
        self.line(format!("token_file = \"nimbox-token\"   # (line {token_line})"));
        self.secret("nimbox-token", *token_line, token);
        if let Some(((name, password), line)) = &settings.account {
            self.line(format!("username = {}   # (line {line})", quoted(name)));
            if password.is_empty() {
                self.line("password_file = \"nimbox-password\"   # REVIEW: empty in the script");
            } else {
                self.line("password_file = \"nimbox-password\"");
            }
            self.secret("nimbox-password", *line, password);
        }
        self.line("# As the script wrote it: local time with a Z. If the CDR times are in UTC: \"utc-z\".");
        self.line("initiated = \"local-z\"");
        self.line("# The script sent every row of a call; this sends what a person would have written down.");
        self.line("mode = \"per_cdr\"");
        self.line("# The script took `dst`, which for many inbound calls is an extension.");
        self.line("inbound_destination = \"did\"");
    }
}

/// A TOML basic string.
pub(in crate::cli) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// For a comment, which ends with its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
