//! Any block is a message or is refused, and what a message says can always be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parsers::ami::{Event, Message, Response};

fuzz_target!(|block: &[u8]| {
    let Ok(message) = Message::parse(block.to_vec()) else { return };
    for (key, value) in message.headers() {
        if let Ok(key) = std::str::from_utf8(key) {
            assert!(message.get_all(key).any(|found| found == value), "a header that is there is found");
            let _ = message.text(key);
        }
    }
    let _ = Event::parse(&message);
    let _ = Response::parse(message).map(|response| response.output().len());
});
