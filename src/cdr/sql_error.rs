//! What a database's errors mean to whoever runs callpost, and what to do.

use super::store::StoreError;

/// Names the matter. The driver's texts hold no password.
pub(super) fn explain(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Io(why) => StoreError::new(
            format!("no database answers: {why}"),
            "start it, or correct host, port or socket in [cdr] source",
        ),
        sqlx::Error::Tls(why) => StoreError::new(
            format!("TLS with the database failed: {why}"),
            "correct sslmode or sslrootcert (ssl-ca) in [cdr] source",
        ),
        sqlx::Error::Configuration(why) => {
            StoreError::new(format!("[cdr] source cannot be used: {why}"), "correct it; see callpost.toml(5)")
        }
        sqlx::Error::Database(why) => {
            let code = why.code().unwrap_or_default();
            StoreError::new(format!("the database says: {}", why.message()), remedy(&code, why.message()))
        }
        sqlx::Error::Protocol(why) if why.contains("sha2") || why.contains("RSA") => StoreError::new(
            format!("the database wants a login that is not safe without TLS: {why}"),
            "connect by its socket (?socket=/run/mysqld/mysqld.sock) or with ?ssl-mode=REQUIRED",
        ),
        other => StoreError::new(
            format!("the database connection failed: {other}"),
            "try again; if it stays, see the database's own log",
        ),
    }
}

/// By SQLSTATE, MySQL's error in the text, or SQLite's primary result code.
fn remedy(code: &str, message: &str) -> &'static str {
    let primary = code.parse::<u32>().ok().filter(|code| *code < 10_000).map(|code| code & 0xff);
    match code {
        "28000" | "28P01" => "correct user and password in [cdr] source; a reader needs only SELECT",
        "3D000" => "correct the database's name in [cdr] source",
        "42000" if message.contains("nknown database") => "correct the database's name in [cdr] source",
        "42000" | "42501" => "GRANT SELECT on the table to the user in [cdr] source",
        "42S02" | "42P01" => "correct [cdr] table",
        "42S22" | "42703" => "the table was changed meanwhile: start again",
        "70100" | "57014" | "HY000" if message.contains("time") || message.contains("interrupted") => {
            "a query took longer than 5 s: somebody has locked the table, it lacks an index, or the database is busy; try again at night"
        }
        "55P03" => "somebody has locked the table: try again later",
        "08004" | "53300" => "it has no connection left: raise max_connections, or try again later",
        _ => match primary {
            Some(5 | 6) => "somebody has locked the file: try again later",
            Some(14) => "let the user callpost read the file and its directory",
            Some(11 | 26) => "that is no sound SQLite file: see [cdr] source",
            _ => "see the database's own documentation for it",
        },
    }
}
