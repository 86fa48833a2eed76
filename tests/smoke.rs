//! The main job, once.
mod common;
use common::{Rpmdb, daemon::Daemon, quick_package, rpmbuild};

#[test]
fn a_dropped_package_is_signed_and_rpm_agrees() {
    let daemon = Daemon::start("");
    let project = daemon.project("alice/tools");
    let real = rpmbuild(&project, "real", 1000);
    let v4 = quick_package(&project, "v4", 1000, rpm::RpmFormat::V4);
    quick_package(&project, "v6", 1000, rpm::RpmFormat::V6);
    daemon.settle(&daemon.drop_dir());
    let rpmdb = Rpmdb::new(&daemon.export("alice#tools@copr.example.org"));
    for path in [real, v4] {
        assert!(
            rpmdb.is_signed(&path),
            "{}\n{}",
            rpmdb.check(&path).1,
            daemon.log()
        );
    }
}
