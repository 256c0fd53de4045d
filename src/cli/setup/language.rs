//! English and Spanish: who sees callpost for the first time reads it in their own language.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    English,
    Spanish,
}

impl Language {
    /// As setlocale(3) finds it: the first of the variables that is set decides.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(set).unwrap_or_default();
        let language = locale.split(['_', '.', '@']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("es") { Self::Spanish } else { Self::English }
    }

    pub fn say(self, english: &'static str, spanish: &'static str) -> &'static str {
        match self {
            Self::English => english,
            Self::Spanish => spanish,
        }
    }
}

/// A text with values in it, in the language: `say!(language, "in {file}", "en {file}")`.
macro_rules! say {
    ($language:expr, $english:literal, $spanish:literal) => {
        match $language {
            $crate::cli::setup::language::Language::English => format!($english),
            $crate::cli::setup::language::Language::Spanish => format!($spanish),
        }
    };
}
pub(super) use say;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_chooses_the_language() {
        let of = |set: &[(&str, &str)]| {
            Language::of(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[]), Language::English);
        assert_eq!(of(&[("LANG", "es_VE.UTF-8")]), Language::Spanish);
        assert_eq!(of(&[("LANG", "es")]), Language::Spanish);
        assert_eq!(of(&[("LC_ALL", "C.UTF-8"), ("LANG", "es_VE.UTF-8")]), Language::English);
        assert_eq!(of(&[("LANG", "et_EE.UTF-8")]), Language::English);
    }
}
