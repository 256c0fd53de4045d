//! What is played, and when.

/// One recorded call.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// For programs.
    pub name: &'static str,
    /// What happens, in English.
    pub english: &'static str,
    /// What happens, in Spanish.
    pub spanish: &'static str,
    /// Seconds after the beginning; scenes overlap a little, as calls do.
    pub start: f64,
    /// The stream as it was recorded.
    pub stream: &'static [u8],
}

macro_rules! scene {
    ($name:literal, $start:literal, $english:literal, $spanish:literal) => {
        Scene {
            name: $name,
            english: $english,
            spanish: $spanish,
            start: $start,
            stream: include_bytes!(concat!("../../fixtures/ami/demo/", $name, ".ami")),
        }
    };
}

/// About 25 seconds, told as a morning at a small firm.
pub const SCENES: [Scene; 8] = [
    scene!("inbound_answered", 0.0, "a customer calls, Ana answers", "llama un cliente, Ana contesta"),
    scene!("outbound_answered", 2.2, "Ana calls a customer", "Ana llama a un cliente"),
    scene!(
        "inbound_missed",
        4.6,
        "somebody gives up before Ana answers",
        "alguien cuelga antes de que Ana conteste"
    ),
    scene!("ring_group", 6.0, "two phones ring, one answers", "suenan dos teléfonos, contesta uno"),
    scene!("sms", 8.4, "a text arrives", "llega un mensaje de texto"),
    scene!("hold", 9.0, "a call is put on hold", "una llamada queda en espera"),
    scene!("queue_answered", 12.4, "a caller waits in a queue", "alguien espera en una cola"),
    scene!("blind_transfer", 15.4, "Ana transfers a call to Beto", "Ana transfiere una llamada a Beto"),
];
