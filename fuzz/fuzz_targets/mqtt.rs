#![no_main]

#[path = "../oracles/mqtt.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringcast_fuzz::mqtt::packets(data);
    oracles::agree(data);
});
