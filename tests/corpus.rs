//! Packages that others made, from rpm 4.4 to 6.0: each is signed, or refused for a reason.
mod common;

use std::{fs, fs::File, time::SystemTime};

use common::{Rpmdb, TestKey, corpus, edited, packages_below};
use signdrop::{
    digest::Digest,
    format::rpm::{Error, Package, Whole},
    key::Algorithm,
};

fn whole(path: &std::path::Path, digest: Digest) -> Result<Whole, Error> {
    let file = File::open(path).unwrap();
    Package::read(&file)?.check(&file, digest)
}

#[test]
fn every_sound_package_is_signed_as_rpm_wants_it_and_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for algorithm in [Algorithm::Rsa2048, Algorithm::Ed25519, Algorithm::NistP256] {
        let key = TestKey::new(algorithm);
        let rpmdb = Rpmdb::new(&key.certificate.to_armour().unwrap());
        for path in packages_below(&corpus()) {
            let original = fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let (sound, said) = rpmdb.check(&path);
            match whole(&path, Digest::Sha256) {
                Ok(whole) => {
                    let edit = whole.sign(&key, SystemTime::now()).unwrap().unwrap();
                    let signed = dir.path().join("signed.rpm");
                    fs::write(&signed, edited(&original, &edit)).unwrap();
                    let (good, text) = rpmdb.check(&signed);
                    println!(
                        "{name} v{} inplace={} {good} {text}",
                        whole.package().version(),
                        edit.keeps_length()
                    );
                }
                Err(error) => println!("{name} refused: {error}; rpm: {sound} {said}"),
            }
        }
    }
}
