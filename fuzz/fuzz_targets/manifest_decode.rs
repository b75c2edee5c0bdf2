//! A manifest's bytes: any, and any with the checksum that they need.

#![no_main]

use isolde_fuzz::sealed;
use isolde_wal::Manifest;
use libfuzzer_sys::fuzz_target;

fn check(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes, "a manifest encodes to what it was decoded from");
        let _ = (manifest.checkpoint_ts(), manifest.ts_of(b"key"));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&sealed(bytes.to_vec()));
    let with_magic = [&b"ISOLDMAN\x01\0\0\0"[..], bytes].concat();
    check(&sealed(with_magic));
});
