//! The connection to Asterisk: it reads, answers nothing, waits for nobody.
