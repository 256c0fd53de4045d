//! What only people know: by flags, or asked on a terminal.

use std::io::{BufRead, Write};
use std::process::{Command, Stdio};

use secrecy::SecretString;
use url::Url;

use super::found::Found;
use super::host::Host;
use super::language::{Language, say};
use super::plan::TOKEN;
use super::site::Site;
use crate::cli::args::{CdrStoreArg, Destination};
use crate::cli::exit::CliError;

/// What is wanted; what is `None` was not said.
#[derive(Default)]
pub(super) struct Wishes {
    pub name: Option<String>,
    pub trunks: Option<Vec<String>>,
    pub nimbox_url: Option<Url>,
    pub token: Option<SecretString>,
    pub destination: Option<Destination>,
    pub webhook_url: Option<Url>,
    pub cdr_events: Option<bool>,
    pub store: Option<CdrStoreArg>,
}

/// Somebody who can answer.
pub(super) struct Questions<'a> {
    pub input: &'a mut dyn BufRead,
    pub output: &'a mut dyn Write,
    pub language: Language,
    /// What is typed can be hidden.
    pub terminal: bool,
}

impl Questions<'_> {
    /// Asks for what was not said yet and is not configured elsewhere.
    pub fn fill(
        &mut self,
        wishes: &mut Wishes,
        host: &Host,
        site: &Site,
        found: &Found,
    ) -> Result<(), CliError> {
        let language = self.language;
        let has = |table: &str| site.elsewhere.contains_key(table);
        if !has("pbx") {
            if wishes.name.is_none() {
                let question = language.say(
                    "A name for this PBX; it goes into every id, so choose it once",
                    "Un nombre para esta central; va en cada id: elíjalo una sola vez",
                );
                wishes.name = self.text(question, &found.name(site))?;
            }
            if wishes.trunks.is_none() {
                let question = language.say(
                    "Outside lines, by the beginning of their channels' names",
                    "Líneas externas, por el comienzo del nombre de sus canales",
                );
                let default = found.trunks(site).join(" ");
                let answer = self.text(question, &default)?.unwrap_or_default();
                wishes.trunks =
                    Some(answer.split([' ', ',']).filter(|w| !w.is_empty()).map(str::to_owned).collect());
            }
        }
        if !has("nimbox") {
            self.nimbox(wishes, site)?;
        }
        let asks = wishes.webhook_url.is_none() && !has("webhook") && site.earlier.webhook.is_empty();
        if asks {
            let question = language.say(
                "URL of a webhook for call events (Enter: none)",
                "URL de un webhook para eventos de llamadas (Enter: ninguno)",
            );
            wishes.webhook_url = self.url(question)?;
        }
        let nimbox = wishes.nimbox_url.is_some() || !site.earlier.nimbox.is_empty() || has("nimbox");
        if nimbox && wishes.cdr_events.is_none() && !found.cdr_events {
            let question = language.say(
                "Turn on Asterisk's Cdr events, for exact durations in NiMbox?",
                "¿Activar los eventos Cdr de Asterisk, para duraciones exactas en NiMbox?",
            );
            wishes.cdr_events = Some(self.yes(question)?);
        }
        self.store(wishes, host, site, found)
    }

    fn nimbox(&mut self, wishes: &mut Wishes, site: &Site) -> Result<(), CliError> {
        let language = self.language;
        if wishes.nimbox_url.is_none() && site.earlier.nimbox.is_empty() {
            let question =
                language.say("URL of your NiMbox (Enter: none)", "URL de su NiMbox (Enter: ninguno)");
            wishes.nimbox_url = self.url(question)?;
        }
        if wishes.nimbox_url.is_none() {
            return Ok(());
        }
        if wishes.token.is_none() && site.secret(TOKEN)?.is_none() {
            let question = language
                .say("NiMbox's token (not shown as you type)", "Token de NiMbox (no se muestra al escribir)");
            wishes.token = self.hidden(question)?;
        }
        if wishes.destination.is_none() {
            writeln!(self.output, "{}", explained(language))?;
            let question = language.say(
                "Destination of inbound calls: did, dst, caller",
                "Destino de las entrantes: did, dst, caller",
            );
            wishes.destination = Some(loop {
                match self.text(question, "did")?.as_deref() {
                    Some("did") | None => break Destination::Did,
                    Some("dst") => break Destination::Dst,
                    Some("caller") => break Destination::Caller,
                    Some(_) => {}
                }
            });
        }
        Ok(())
    }

    fn store(
        &mut self,
        wishes: &mut Wishes,
        host: &Host,
        site: &Site,
        found: &Found,
    ) -> Result<(), CliError> {
        let language = self.language;
        if wishes.store.is_some() || site.elsewhere.contains_key("cdr") || site.earlier.cdr.is_some() {
            return Ok(());
        }
        let Some(store) = found.stores.first() else { return Ok(()) };
        let (shown, by, platform) = (store.shown(), &store.by, host.platform.name());
        let question = say!(
            language,
            "{platform} writes its calls to {shown} ({by}). Read there what was missed, as an account that may only read?",
            "{platform} escribe sus llamadas en {shown} ({by}). ¿Leer allí lo que se haya perdido, con una cuenta de solo lectura?"
        );
        wishes.store = Some(if self.yes(&question)? { CdrStoreArg::Auto } else { CdrStoreArg::None });
        Ok(())
    }

    fn line(&mut self) -> Result<String, CliError> {
        self.output.flush()?;
        let mut answer = String::new();
        if self.input.read_line(&mut answer)? == 0 {
            return Err(CliError::usage(
                "there is nobody who answers any more",
                "nothing was done; give flags and --yes",
            ));
        }
        Ok(answer.trim().to_owned())
    }

    /// Enter takes the default; `None` where that is empty.
    fn text(&mut self, question: &str, default: &str) -> Result<Option<String>, CliError> {
        if default.is_empty() {
            write!(self.output, "{question}: ")?;
        } else {
            write!(self.output, "{question} [{default}]: ")?;
        }
        let answer = self.line()?;
        let answer = if answer.is_empty() { default.to_owned() } else { answer };
        Ok((!answer.is_empty()).then_some(answer))
    }

    fn url(&mut self, question: &str) -> Result<Option<Url>, CliError> {
        loop {
            let Some(text) = self.text(question, "")? else { return Ok(None) };
            match Url::parse(&text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => return Ok(Some(url)),
                _ => writeln!(self.output, "https://...")?,
            }
        }
    }

    fn yes(&mut self, question: &str) -> Result<bool, CliError> {
        write!(self.output, "{question} {}: ", self.language.say("[Y/n]", "[S/n]"))?;
        let answer = self.line()?.to_lowercase();
        Ok(matches!(answer.as_str(), "" | "y" | "yes" | "s" | "si" | "sí"))
    }

    fn hidden(&mut self, question: &str) -> Result<Option<SecretString>, CliError> {
        write!(self.output, "{question}: ")?;
        let _echo = self.terminal.then(NoEcho::begin);
        let answer = self.line()?;
        writeln!(self.output)?;
        Ok((!answer.is_empty()).then(|| SecretString::from(answer)))
    }
}

/// The terminal shows what is typed again, however this ends.
struct NoEcho;

impl NoEcho {
    fn begin() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        stty("echo");
    }
}

/// A terminal that cannot be told goes on showing.
fn stty(option: &str) {
    let _ = Command::new("stty").arg(option).stdin(Stdio::inherit()).stderr(Stdio::null()).status();
}

fn explained(language: Language) -> &'static str {
    language.say(
        "NiMbox finds the contact of a call by its destination. For a call that comes in, that can be\n\
         \x20 did     the number of yours that was called: calls are filed, under no contact\n\
         \x20 dst     what Asterisk's record says, often an extension\n\
         \x20 caller  who called: calls are filed under the caller's contact",
        "NiMbox busca el contacto de una llamada por su destino. En una llamada entrante, puede ser\n\
         \x20 did     el número suyo al que llamaron: se registra, sin contacto\n\
         \x20 dst     lo que dice el registro de Asterisk, a menudo una extensión\n\
         \x20 caller  quien llamó: se registra en el contacto de quien llama",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(answers: &str) -> Questions<'static> {
        let input = Box::leak(Box::new(std::io::Cursor::new(answers.to_owned())));
        let output = Box::leak(Box::new(Vec::new()));
        Questions { input, output, language: Language::English, terminal: false }
    }

    #[test]
    fn enter_takes_what_is_proposed_and_an_end_is_no_consent() {
        let mut questions = asked("\nother\nn\nsí\n");
        assert_eq!(questions.text("q", "hq").ok().flatten().as_deref(), Some("hq"));
        assert_eq!(questions.text("q", "hq").ok().flatten().as_deref(), Some("other"));
        assert_eq!(questions.yes("q").ok(), Some(false));
        assert_eq!(questions.yes("q").ok(), Some(true));
        assert!(questions.yes("q").is_err());
    }
}
