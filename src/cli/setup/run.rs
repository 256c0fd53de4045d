//! The command: look, ask, show, write, reload, confirm, check.

use std::io::{self, IsTerminal};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use secrecy::SecretString;

use super::account::USER;
use super::ask::{Questions, Wishes};
use super::change::{Change, Owner};
use super::conf::text_of;
use super::found::Found;
use super::host::Host;
use super::language::{Language, say};
use super::plan::{Plan, plan};
use super::show::show;
use super::site::Site;
use crate::cli::args;
use crate::cli::ask::consent;
use crate::cli::check;
use crate::cli::exit::{CliError, Done};
use crate::cli::out::{Out, paint, style};
use crate::config::{DEFAULT_FILE, Environment, Faults, load};

pub(in crate::cli) async fn setup(config: &Path, args: &args::Setup) -> Result<Done, CliError> {
    let language = Language::of(|name| std::env::var(name).ok());
    let mut out = Out::new(args.output.json);
    let host = Host::look(&args.root)?;
    let file = if args.root == Path::new("/") || config != Path::new(DEFAULT_FILE) {
        config.to_path_buf()
    } else {
        args.root.join(DEFAULT_FILE.trim_start_matches('/'))
    };
    let site = Site::look(&host, &file)?;
    let found = Found::look(&host)?;
    let mut wishes = wishes(args)?;
    if io::stdin().is_terminal() && !args.yes && !args.output.json {
        let (mut input, mut output) = (io::stdin().lock(), anstream::stderr());
        let mut questions = Questions { input: &mut input, output: &mut output, language, terminal: true };
        questions.fill(&mut wishes, &host, &site, &found)?;
    }
    let plan = plan(&host, &site, &found, &wishes, language, &random)?;
    proven(&plan, &site, &host)?;
    show(&plan, &host, language, &mut out)?;
    if args.dry_run {
        out.note(language.say("\nnothing was written (--dry-run)", "\nno se escribió nada (--dry-run)"))?;
        return Ok(Done::All);
    }
    if plan.changes.is_empty() {
        out.note(
            language.say("\nnothing to change: all of it is there", "\nnada que cambiar: todo está hecho"),
        )?;
    } else {
        let question = language.say("Write this?", "¿Escribir esto?");
        if !consent(question, args.yes)? {
            return Ok(Done::Failed);
        }
        write(&plan, &site, &host, language, &mut out)?;
    }
    tell_asterisk(&plan, &host, language, &mut out)?;
    let mut done = Done::All;
    if !args.no_check {
        out.note("")?;
        let mut environment = Environment::of_process();
        environment.secrets = Some(site.secrets());
        let asked = args::Check { config_only: false, send_test: false, output: args.output };
        if check::check_in(&file, &environment, &asked).await? != Done::All {
            // it is set up; check has said what is still to be put right
            done = Done::Partly;
        }
    }
    // last, where they are not overlooked
    for step in &plan.next {
        let step = step.trim_end().replace('\n', "\n      ");
        out.note(format!("{}  {step}", paint(style::WARN.bold(), language.say("next", "ahora"))))?;
    }
    Ok(done)
}

fn wishes(args: &args::Setup) -> Result<Wishes, CliError> {
    let token = match &args.nimbox_token_file {
        None => None,
        Some(path) => {
            let text = text_of(path)?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            let Some(text) = text.filter(|text| !text.contains('\n')) else {
                let what = format!("{} holds no token", path.display());
                return Err(CliError::usage(what, "name a file with NiMbox's token on one line"));
            };
            Some(SecretString::from(text))
        }
    };
    Ok(Wishes {
        name: args.name.clone(),
        trunks: (!args.trunk.is_empty()).then(|| args.trunk.clone()),
        nimbox_url: args.nimbox_url.clone(),
        token,
        destination: args.destination,
        webhook_url: args.webhook_url.clone(),
        cdr_events: args.enable_cdr.then_some(true),
        store: args.cdr_store.clone(),
    })
}

fn random(bytes: &mut [u8]) -> Result<(), CliError> {
    getrandom::fill(bytes)
        .map_err(|why| CliError::failed(format!("failed to make a secret: {why}"), "see random(4)"))
}

/// Reads the configuration as it would be, in a place of its own: what has faults is never written.
fn proven(plan: &Plan, site: &Site, host: &Host) -> Result<(), CliError> {
    let failed = |why: io::Error| {
        CliError::failed(
            format!("failed to try the configuration: {why}"),
            "make room in the directory for temporary files",
        )
    };
    let place = tempfile::tempdir().map_err(failed)?;
    let base = site.file.parent().unwrap_or(Path::new("/"));
    let copies = [base.join("conf.d"), site.secrets()];
    let files = copies.iter().flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten());
    let mut files: Vec<PathBuf> = files.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.push(site.file.clone());
    let secrets = host.shown(&site.secrets());
    let put = |path: &Path, text: &[u8]| -> io::Result<()> {
        let Ok(inside) = path.strip_prefix(base) else { return Ok(()) };
        let copy = place.path().join(inside);
        std::fs::create_dir_all(copy.parent().unwrap_or(place.path()))?;
        // secrets that are named by their paths are looked for among the copies
        let text = match std::str::from_utf8(text) {
            Ok(text) => {
                text.replace(&secrets, &place.path().join("secrets").display().to_string()).into_bytes()
            }
            Err(_) => text.to_vec(),
        };
        std::fs::write(&copy, text)?;
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o600))
    };
    for path in files.iter().filter(|path| path.is_file()) {
        put(path, &std::fs::read(path).map_err(failed)?).map_err(failed)?;
    }
    for change in &plan.changes {
        put(&change.path, &change.after).map_err(failed)?;
    }
    let copy = place.path().join(site.file.file_name().unwrap_or_default());
    let environment = Environment { secrets: Some(place.path().join("secrets")), ..Environment::default() };
    let Err(faults) = load(&copy, &environment) else { return Ok(()) };
    let own = place.path().join("conf.d").join(super::site::FILE).display().to_string();
    let (from, to) = (place.path().display().to_string(), host.shown(base));
    let ours = faults.0.into_iter().filter(|fault| fault.file == own).map(|mut fault| {
        fault.file = fault.file.replace(&from, &to);
        fault.problem = fault.problem.replace(&from, &to);
        fault
    });
    let ours: Vec<_> = ours.collect();
    if ours.is_empty() { Ok(()) } else { Err(CliError::Config(Faults(ours))) }
}

fn write(plan: &Plan, site: &Site, host: &Host, language: Language, out: &mut Out) -> Result<(), CliError> {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let directory = Owner { mode: if site.has_group { 0o750 } else { 0o700 }, ..site.owner };
    // secrets first: what names them comes after
    let order = |change: &&Change| !change.secret;
    let mut changes: Vec<_> = plan.changes.iter().collect();
    changes.sort_by_key(order);
    out.note("")?;
    for change in changes {
        let outside = !change.path.starts_with(site.file.parent().unwrap_or(Path::new("/")));
        let directory = if outside { Owner { mode: 0o755, ..directory } } else { directory };
        let backup = change.write(&stamp, directory)?;
        let path = host.shown(&change.path);
        match backup {
            None => out.note(say!(language, "wrote {path}", "escrito {path}"))?,
            Some(backup) => {
                let backup = host.shown(&backup);
                out.note(say!(
                    language,
                    "wrote {path} (before: {backup})",
                    "escrito {path} (antes: {backup})"
                ))?;
            }
        }
    }
    Ok(())
}

/// Asterisk reads what was written, and is asked whether it knows the account.
fn tell_asterisk(plan: &Plan, host: &Host, language: Language, out: &mut Out) -> Result<(), CliError> {
    let Some(console) = host.console.as_ref().filter(|_| plan.confirm || plan.reload_cdr) else {
        if plan.reload_manager || plan.reload_cdr {
            out.note(say!(
                language,
                "Asterisk's program was not found: make it read its files: manager reload, module reload cdr_manager.so",
                "no se encontró el programa de Asterisk: haga que lea sus archivos: manager reload, module reload cdr_manager.so"
            ))?;
        }
        return Ok(());
    };
    let lists =
        || console.says("manager show users").map(|users| users.lines().any(|line| line.trim() == USER));
    let Some(mut listed) = lists() else {
        out.note(language.say(
            "Asterisk is not running; it reads this when it starts",
            "Asterisk no está en marcha; lo leerá al arrancar",
        ))?;
        return Ok(());
    };
    if plan.confirm && (plan.reload_manager || !listed) {
        let _ = console.says("manager reload");
        listed = lists() == Some(true);
    }
    if plan.reload_cdr {
        let _ = console.says("module reload cdr_manager.so");
        let running = |text: String| text.contains("Running") && !text.contains("Not Running");
        if !console.says("module show like cdr_manager.so").is_some_and(running) {
            // it was not loaded while it had no configuration
            let _ = console.says("module load cdr_manager.so");
        }
    }
    if plan.confirm && !listed {
        let what = "Asterisk does not list the account callpost after manager reload";
        return Err(CliError::failed(
            what,
            "look at asterisk -rx 'manager show users' and at Asterisk's log",
        ));
    }
    if plan.confirm {
        out.note(say!(
            language,
            "Asterisk knows the account callpost",
            "Asterisk conoce la cuenta callpost"
        ))?;
    }
    Ok(())
}
