//! Any bytes give the same frames, in one piece or in many.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use parsers::ami::{Codec, Frame};
use tokio_util::codec::Decoder;

fuzz_target!(|stream: &[u8]| {
    for codec in [Codec::default(), Codec::after_banner()] {
        let whole = frames(codec.clone(), stream, stream.len().max(1));
        assert_eq!(frames(codec, stream, 1 + stream.len() % 13), whole);
    }
});

fn frames(mut codec: Codec, stream: &[u8], chunk: usize) -> Vec<Frame> {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for chunk in stream.chunks(chunk) {
        buffer.extend_from_slice(chunk);
        while let Some(frame) = codec.decode(&mut buffer).expect("decoding never fails") {
            frames.push(frame);
        }
    }
    while let Some(frame) = codec.decode_eof(&mut buffer).expect("the end never fails") {
        frames.push(frame);
    }
    frames
}
