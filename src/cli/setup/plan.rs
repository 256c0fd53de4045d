//! From what was found and what is wanted to the files as they are to be. Nothing is written here.

use std::path::PathBuf;

use base64::Engine as _;
use secrecy::ExposeSecret as _;
use url::Url;

use super::account::{self, Account};
use super::ask::Wishes;
use super::change::{Change, Owner};
use super::conf::bytes_of;
use super::found::Found;
use super::host::Host;
use super::language::{Language, say};
use super::site::{Ami, Cdr, Nimbox, Pbx, Settings, Site, Webhook};
use super::{cdr_events, store};
use crate::cli::args::{CdrStoreArg, Destination};
use crate::cli::exit::CliError;
use crate::hex::hex;

/// Names of secrets.
const AMI_SECRET: &str = "ami-secret";
pub(super) const TOKEN: &str = "nimbox-token";
const WEBHOOK_SECRET: &str = "webhook-secret";
const CDR_SOURCE: &str = "cdr-source";
const CDR_GRANT: &str = "cdr-grant.sql";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Ok,
    Note,
    Warning,
}

/// What is to be written, and what is to be known.
pub(super) struct Plan {
    pub changes: Vec<Change>,
    pub notes: Vec<(Level, String)>,
    /// To be done by hand afterwards.
    pub next: Vec<String>,
    /// Asterisk has to read its manager accounts, its Cdr events anew.
    pub reload_manager: bool,
    pub reload_cdr: bool,
    /// The account is to be asked for.
    pub confirm: bool,
}

/// `random` fills secrets.
pub(super) fn plan(
    host: &Host,
    site: &Site,
    found: &Found,
    wishes: &Wishes,
    language: Language,
    random: &dyn Fn(&mut [u8]) -> Result<(), CliError>,
) -> Result<Plan, CliError> {
    let settings = site.earlier.clone();
    let plan = Plan {
        changes: Vec::new(),
        notes: Vec::new(),
        next: Vec::new(),
        reload_manager: false,
        reload_cdr: false,
        confirm: false,
    };
    let mut making = Making { host, site, found, wishes, language, random, settings, plan };
    making.host_notes()?;
    making.account()?;
    making.pbx();
    making.nimbox()?;
    making.webhook()?;
    making.cdr_events()?;
    making.store()?;
    making.own_files()?;
    making.plan.changes.retain(Change::is_needed);
    Ok(making.plan)
}

struct Making<'a> {
    host: &'a Host,
    site: &'a Site,
    found: &'a Found,
    wishes: &'a Wishes,
    language: Language,
    random: &'a dyn Fn(&mut [u8]) -> Result<(), CliError>,
    settings: Settings,
    plan: Plan,
}

impl Making<'_> {
    fn ok(&mut self, text: String) {
        self.plan.notes.push((Level::Ok, text));
    }

    fn note(&mut self, text: String) {
        self.plan.notes.push((Level::Note, text));
    }

    fn warn(&mut self, text: String) {
        self.plan.notes.push((Level::Warning, text));
    }

    fn host_notes(&mut self) -> Result<(), CliError> {
        let (host, language) = (self.host, self.language);
        let (platform, why) = (host.platform.name(), host.why.join(", "));
        let version = host.version.map(|(a, b)| format!(", Asterisk {a}.{b}")).unwrap_or_default();
        self.ok(say!(language, "{platform}{version}: {why} is there", "{platform}{version}: existe {why}"));
        let (address, port) = account::address(host);
        if host.manager.is_true("general", "enabled") == Some(true) {
            self.ok(say!(language, "AMI is on, at {address}:{port}", "AMI está activo, en {address}:{port}"));
            if account::is_open_to_all(host) {
                self.warn(say!(
                    language,
                    "AMI listens on every address of this host (bindaddr in manager.conf): keep port {port} closed \
                     in the firewall, or bind it to 127.0.0.1 if nothing else needs it",
                    "AMI escucha en todas las direcciones de este equipo (bindaddr en manager.conf): cierre el puerto \
                     {port} en el cortafuegos, o use 127.0.0.1 si nada más lo necesita"
                ));
            }
        } else if host.platform.writes_files() {
            self.warn(say!(
                language,
                "AMI is off (enabled in manager.conf), and {platform} writes that file itself: turn it on there",
                "AMI está desactivado (enabled en manager.conf), y {platform} escribe ese archivo: actívelo allí"
            ));
        } else {
            self.note(say!(
                language,
                "AMI is off; it is turned on, for this host alone if it had no address of its own",
                "AMI está desactivado; se activa, solo para este equipo si no tenía dirección propia"
            ));
        }
        let place = account::place(host);
        // what is about to be written is there then, also for a pattern that nothing matches yet
        let fills = |path: &PathBuf| {
            let pattern = path.to_string_lossy().contains('*');
            path == place.path() || (pattern && path.parent() == place.path().parent())
        };
        for missing in host.manager.missing.iter().filter(|path| !fills(path)) {
            let missing = host.shown(missing);
            self.warn(say!(
                language,
                "manager.conf includes {missing}, which is not there: Asterisk refuses the whole file for it",
                "manager.conf incluye {missing}, que no existe: por eso Asterisk rechaza el archivo entero"
            ));
        }
        let (enabled, batch) = store::general(host)?;
        if !enabled {
            self.warn(say!(
                language,
                "cdr.conf says enable = no: Asterisk keeps no records of calls, and NiMbox gets only what was seen",
                "cdr.conf dice enable = no: Asterisk no guarda registros, y NiMbox recibe solo lo que se vio"
            ));
        }
        if batch {
            self.warn(say!(
                language,
                "cdr.conf says batch = yes: records, and so creates, come up to five minutes late",
                "cdr.conf dice batch = yes: los registros llegan con hasta cinco minutos de retraso"
            ));
        }
        Ok(())
    }

    fn account(&mut self) -> Result<(), CliError> {
        let (host, language) = (self.host, self.language);
        if let Some(file) = self.site.elsewhere.get("ami") {
            let file = host.shown(file);
            self.note(say!(
                language,
                "{file} has [ami]: it stays, and so does its account",
                "{file} tiene [ami]: queda como está, y su cuenta también"
            ));
            return Ok(());
        }
        self.plan.confirm = true;
        let account = account::existing(host)?;
        let stored = self.site.secret(AMI_SECRET)?;
        let secret = match &account {
            Some(Account { ours: false, file, line, secret, lacks }) => {
                let at = format!("{}:{line}", host.shown(file));
                let Some(secret) = secret.clone().filter(|secret| !secret.is_empty()) else {
                    let what = format!("{at} has an account [{}] without a secret", account::USER);
                    return Err(CliError::usage(what, "give it one, or remove it and let setup write it"));
                };
                self.note(say!(
                    language,
                    "{at} has an account [callpost] that setup did not write: it stays, and its secret is taken over",
                    "{at} tiene una cuenta [callpost] que setup no escribió: queda, y se usa su secreto"
                ));
                if !lacks.is_empty() {
                    let lacks = lacks.join("; ");
                    self.warn(say!(language, "it lacks: {lacks}", "le falta: {lacks}"));
                }
                secret
            }
            ours => match stored.or_else(|| ours.as_ref().and_then(|account| account.secret.clone())) {
                Some(secret) => secret,
                None => self.random_hex(32)?,
            },
        };
        let changes = match &account {
            Some(account) if !account.ours => vec![account::switch_on(host)?],
            account => account::changes(host, &secret, account.as_ref())?,
        };
        self.plan.reload_manager = changes.iter().any(Change::is_needed);
        self.plan.changes.extend(changes);
        self.secret_file(AMI_SECRET, &secret)?;
        let (address, port) = account::address(host);
        let address = if address.contains(':') { format!("[{address}]") } else { address };
        self.settings.ami = Some(Ami {
            address: format!("{address}:{port}"),
            username: account::USER.to_owned(),
            secret_file: self.site.secret_name(host, AMI_SECRET),
        });
        Ok(())
    }

    fn pbx(&mut self) {
        let language = self.language;
        if let Some(file) = self.site.elsewhere.get("pbx") {
            let file = self.host.shown(file);
            self.note(say!(language, "{file} has [pbx]: it stays", "{file} tiene [pbx]: queda como está"));
            return;
        }
        let name = self.wishes.name.clone().unwrap_or_else(|| self.found.name(self.site));
        let trunks = self.wishes.trunks.clone().unwrap_or_else(|| self.found.trunks(self.site));
        if trunks.is_empty() {
            self.warn(say!(
                language,
                "no outside lines were found; name them with --trunk PJSIP/NAME, or in [pbx] trunks",
                "no se encontraron líneas externas; indíquelas con --trunk PJSIP/NOMBRE, o en [pbx] trunks"
            ));
        } else {
            let list = trunks.join(" ");
            self.ok(say!(language, "outside lines: {list}", "líneas externas: {list}"));
        }
        self.settings.pbx = Some(Pbx { name, trunks });
    }

    fn nimbox(&mut self) -> Result<(), CliError> {
        if let Some(url) = &self.wishes.nimbox_url {
            self.only_here("nimbox")?;
            let earlier = self.settings.nimbox.first();
            let sink = Nimbox {
                name: earlier.map_or_else(|| "crm".to_owned(), |sink| sink.name.clone()),
                url: trimmed(url),
                allow_http: (url.scheme() == "http").then_some(true),
                token_file: self.site.secret_name(self.host, TOKEN),
                inbound_destination: earlier.map_or("did", |sink| &sink.inbound_destination).to_owned(),
            };
            self.settings.nimbox = vec![sink];
        }
        if let Some(destination) = self.wishes.destination {
            let Some(sink) = self.settings.nimbox.first_mut() else {
                return Err(match self.site.elsewhere.get("nimbox") {
                    None => CliError::usage("there is no NiMbox for --destination", "give --nimbox-url too"),
                    Some(file) => CliError::usage(
                        format!("{} has [[nimbox]], which setup does not change", self.host.shown(file)),
                        "set inbound_destination there",
                    ),
                });
            };
            sink.inbound_destination = match destination {
                Destination::Did => "did",
                Destination::Dst => "dst",
                Destination::Caller => "caller",
            }
            .to_owned();
        }
        if let Some(token) = &self.wishes.token {
            if self.settings.nimbox.is_empty() {
                return Err(CliError::usage("there is no NiMbox for the token", "give --nimbox-url too"));
            }
            let token = token.expose_secret().to_owned();
            return self.secret_file(TOKEN, &token);
        }
        if !self.settings.nimbox.is_empty() && self.site.secret(TOKEN)?.is_none() {
            return Err(CliError::usage(
                "NiMbox needs its token",
                "give --nimbox-token-file FILE; the token never goes onto a command line",
            ));
        }
        Ok(())
    }

    fn webhook(&mut self) -> Result<(), CliError> {
        let language = self.language;
        if let Some(url) = &self.wishes.webhook_url {
            self.only_here("webhook")?;
            let earlier = self.settings.webhook.first();
            let events = ["call.state", "sms.received"].map(str::to_owned).to_vec();
            let sink = Webhook {
                name: earlier.map_or_else(|| "webhook".to_owned(), |sink| sink.name.clone()),
                url: url.to_string(),
                allow_http: (url.scheme() == "http").then_some(true),
                events: earlier.map_or(events, |sink| sink.events.clone()),
                secret_file: self.site.secret_name(self.host, WEBHOOK_SECRET),
            };
            self.settings.webhook = vec![sink];
        }
        if !self.settings.webhook.is_empty() && self.site.secret(WEBHOOK_SECRET)?.is_none() {
            let mut key = [0; 32];
            (self.random)(&mut key)?;
            let secret = format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(key));
            self.secret_file(WEBHOOK_SECRET, &secret)?;
            let file = self.shown_secret(WEBHOOK_SECRET);
            self.plan.next.push(say!(
                language,
                "give the receiver of the webhook the secret in {file}, by which it knows who sends",
                "dé al receptor del webhook el secreto de {file}, con el que sabe quién envía"
            ));
        }
        let none = self.settings.nimbox.is_empty() && self.settings.webhook.is_empty();
        if none && !self.site.elsewhere.contains_key("nimbox") && !self.site.elsewhere.contains_key("webhook")
        {
            self.note(say!(
                language,
                "nothing is delivered anywhere until there is a NiMbox or a webhook: --nimbox-url, --webhook-url",
                "nada se entrega hasta que haya un NiMbox o un webhook: --nimbox-url, --webhook-url"
            ));
        }
        Ok(())
    }

    /// A sink that another file has must not come twice.
    fn only_here(&self, table: &str) -> Result<(), CliError> {
        let Some(file) = self.site.elsewhere.get(table) else { return Ok(()) };
        let what = format!("{} has [[{table}]] already", self.host.shown(file));
        Err(CliError::usage(what, format!("change it there, or leave out --{table}-url")))
    }

    fn cdr_events(&mut self) -> Result<(), CliError> {
        let language = self.language;
        if self.found.cdr_events {
            self.ok(language.say("Cdr events are on", "los eventos Cdr están activos").to_owned());
        } else if self.wishes.cdr_events == Some(true) {
            let changes = cdr_events::changes(self.host)?;
            self.plan.reload_cdr = true;
            self.plan.changes.extend(changes);
        } else if !self.settings.nimbox.is_empty() || self.site.elsewhere.contains_key("nimbox") {
            self.note(say!(
                language,
                "Cdr events stay off: NiMbox gets durations as they were seen; --enable-cdr turns them on",
                "los eventos Cdr quedan inactivos: NiMbox recibe las duraciones observadas; --enable-cdr los activa"
            ));
        }
        Ok(())
    }

    fn store(&mut self) -> Result<(), CliError> {
        let language = self.language;
        if let Some(file) = self.site.elsewhere.get("cdr") {
            let file = self.host.shown(file);
            self.note(say!(language, "{file} has [cdr]: it stays", "{file} tiene [cdr]: queda como está"));
            return Ok(());
        }
        match &self.wishes.store {
            Some(CdrStoreArg::None) => self.settings.cdr = None,
            Some(CdrStoreArg::Url(url)) => {
                let password = url.password().is_some();
                let (source, source_file) = if password {
                    self.secret_file(CDR_SOURCE, url.as_str())?;
                    (None, Some(self.site.secret_name(self.host, CDR_SOURCE)))
                } else {
                    (Some(url.to_string()), None)
                };
                self.settings.cdr = Some(Cdr { source, source_file, table: None });
            }
            Some(CdrStoreArg::Auto) => match self.found.stores.first() {
                Some(store) => self.found_store(&store.clone())?,
                None => {
                    let what = "no CDR store was found in Asterisk's configuration";
                    return Err(CliError::usage(what, "name it: --cdr-store mysql://USER@HOST/DATABASE"));
                }
            },
            None if self.settings.cdr.is_none() => {
                if let Some(store) = self.found.stores.first() {
                    let (shown, by) = (store.shown(), &store.by);
                    self.note(say!(
                        language,
                        "calls are also in {shown} ({by}); --cdr-store auto lets callpost read there what it missed",
                        "las llamadas están también en {shown} ({by}); con --cdr-store auto callpost lee allí lo que se perdió"
                    ));
                }
            }
            None => {}
        }
        Ok(())
    }

    fn found_store(&mut self, store: &store::Found) -> Result<(), CliError> {
        let language = self.language;
        let table = (store.table != "cdr").then(|| store.table.clone());
        if !store.needs_account() {
            self.settings.cdr = Some(Cdr { source: Some(store.source("")), source_file: None, table });
            return self.readable(&store.database);
        }
        let source_file = Some(self.site.secret_name(self.host, CDR_SOURCE));
        self.settings.cdr = Some(Cdr { source: None, source_file, table });
        if self.site.secret(CDR_SOURCE)?.is_some() {
            return Ok(());
        }
        let password = self.random_hex(16)?;
        self.secret_file(CDR_SOURCE, &store.source(&password))?;
        let owner = Owner { mode: 0o600, ..self.site.owner };
        self.file(self.site.secrets().join(CDR_GRANT), store.grant(&password).into_bytes(), owner, true)?;
        let file = self.shown_secret(CDR_GRANT);
        let (command, statement) = (store.grant_command(&file), store.grant("********"));
        self.plan.next.push(say!(
            language,
            "make the account that may only read, then remove the file: {command} && rm {file}\n{statement}",
            "cree la cuenta de solo lectura y borre el archivo: {command} && rm {file}\n{statement}"
        ));
        Ok(())
    }

    /// Asterisk's logs are for its group: the agent gets it, by systemd.
    fn readable(&mut self, path: &str) -> Result<(), CliError> {
        use std::os::unix::fs::MetadataExt as _;

        let file = self.host.root.join(path.trim_start_matches('/'));
        let Ok(about) = file.metadata() else { return Ok(()) };
        let open = file
            .ancestors()
            .skip(1)
            .take_while(|path| *path != self.host.root)
            .all(|directory| directory.metadata().is_ok_and(|about| about.mode() & 0o001 != 0));
        if open && about.mode() & 0o004 != 0 {
            return Ok(());
        }
        let drop_in = self.host.root.join("etc/systemd/system/callpost.service.d/50-setup.conf");
        let text = format!(
            "# Written by `callpost setup`: lets the agent read {path}.\n[Service]\nSupplementaryGroups={}\n",
            about.gid()
        );
        let owner = Owner { user: self.site.owner.user, group: 0, mode: 0o644 };
        self.file(drop_in, text.into_bytes(), owner, false)?;
        self.plan.next.push("systemctl daemon-reload && systemctl restart callpost".to_owned());
        Ok(())
    }

    fn own_files(&mut self) -> Result<(), CliError> {
        let language = self.language;
        if !self.site.has_group {
            self.note(say!(
                language,
                "there is no group callpost (the package makes it): files are for this user alone",
                "no existe el grupo callpost (lo crea el paquete): los archivos son solo para este usuario"
            ));
        }
        if bytes_of(&self.site.file)?.is_none() {
            let text = "# Read first; then conf.d/*.toml beside it, in name order. callpost.toml(5) explains every key.\n";
            self.file(self.site.file.clone(), text.into(), Owner { mode: 0o644, ..self.site.owner }, false)?;
        }
        let text = self.settings.text().into_bytes();
        self.file(self.site.own_file(), text, self.site.owner, false)?;
        let anew = self.plan.changes.last().is_some_and(Change::is_needed);
        if anew && !self.plan.next.iter().any(|step| step.contains("restart callpost")) {
            self.plan.next.push(say!(
                language,
                "systemctl restart callpost, and the agent works with it",
                "systemctl restart callpost, y el agente trabaja con ello"
            ));
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, after: Vec<u8>, owner: Owner, secret: bool) -> Result<(), CliError> {
        let before = bytes_of(&path)?;
        self.plan.changes.push(Change { path, before, after, owner, secret });
        Ok(())
    }

    fn secret_file(&mut self, name: &str, secret: &str) -> Result<(), CliError> {
        if self.site.secret(name)?.as_deref() == Some(secret) {
            return Ok(());
        }
        self.file(self.site.secrets().join(name), format!("{secret}\n").into_bytes(), self.site.owner, true)
    }

    fn shown_secret(&self, name: &str) -> String {
        self.host.shown(&self.site.secrets().join(name))
    }

    fn random_hex(&self, bytes: usize) -> Result<String, CliError> {
        let mut random = vec![0; bytes];
        (self.random)(&mut random)?;
        Ok(hex(&random))
    }
}

/// NiMbox's base, without the slash that `Url` adds.
fn trimmed(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}
