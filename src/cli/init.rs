//! `signdrop init` and `signdrop check`

use std::{
    fs::{DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::{
    Error, at,
    terminal::{say, shown},
};
use crate::{
    config::{Action, CertificateOf, Config, MasterKeySource},
    daemon, master_key,
};

/// The configuration that `init` writes.
const TEMPLATE: &str = include_str!("../../examples/signdrop.toml");

/// Makes what is missing and says so; whatever is there stays as it is.
pub(super) fn init(config_path: &Path) -> Result<(), Error> {
    daemon::forbid_core_dumps()?;
    if config_path.exists() {
        say(&format!("present  {}", shown(config_path)))?;
    } else {
        make_parent(config_path, 0o755)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(config_path)
            .map_err(at(config_path))?;
        file.write_all(TEMPLATE.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(at(config_path))?;
        say(&format!("made     {}", shown(config_path)))?;
    }
    let config = Config::read(config_path)?;
    make_directory(&config.state_dir, 0o700)?;
    match &config.keys.master_key {
        MasterKeySource::File(path) if path.exists() => {
            // Reading it tells a wrong mode or content now, not at the first start.
            drop(master_key::read(
                &config.keys.master_key,
                &config.state_dir,
            )?);
            say(&format!("present  {}", shown(path)))?;
        }
        MasterKeySource::File(_) if config.state_dir.join("store").exists() => {
            return Err(Error::Failed(format!(
                "the master key is missing, and {} holds keys that only it decrypts: restore it from a backup",
                config.state_dir.display()
            )));
        }
        MasterKeySource::File(path) => {
            make_parent(path, 0o755)?;
            master_key::create(path, &config.state_dir)?;
            say(&format!(
                "made     {}\n         Keep a copy in a safe place: without it, every key is lost.",
                shown(path)
            ))?;
        }
        MasterKeySource::Credential(name) => say(&format!(
            "not made the credential {name}: systemd has to pass it; `head -c 32 /dev/urandom | base64` makes one"
        ))?,
    }
    say(
        "Next: put drop directories into the configuration, `signdrop check`, `systemctl enable --now signdrop`.",
    )
}

fn make_parent(path: &Path, mode: u32) -> Result<(), Error> {
    match path.parent() {
        Some(parent) if !parent.exists() => make_directory(parent, mode),
        _ => Ok(()),
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    if path.is_dir() {
        return say(&format!("present  {}", shown(path)));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(at(path))?;
    say(&format!("made     {}", shown(path)))
}

/// Prints the configuration as it is understood.
pub(super) fn check(config_path: &Path) -> Result<(), Error> {
    let config = Config::read(config_path)?;
    say(&format!("state directory {}", shown(&config.state_dir)))?;
    for listen in &config.api.listen {
        say(&format!("API on {listen}"))?;
    }
    if let Some(obs) = &config.obs {
        say(&format!("obs-sign's clients on tcp:{}", obs.listen))?;
        if let Some(first) = obs.ports.unprivileged() {
            say(&format!(
                "  WARNING: not only root may use ports below 1024 of this machine, so that ports = \"reserved\" keeps none of its users \
                 out; `sysctl net.ipv4.ip_unprivileged_port_start=1024` mends it, now it is {first}"
            ))?;
        }
    }
    say(&format!(
        "new keys are {}, and expire {}",
        config.keys.algorithm,
        config.keys.lifetime().map_or_else(
            || "never".into(),
            |time| format!("{} days after they are made", time.as_secs() / 86400)
        ),
    ))?;
    say(&format!(
        "kernel modules are signed with {}, named by certificates for {}",
        match config.keys.certificate {
            CertificateOf::Own => format!("{} keys of their own", config.keys.module_algorithm),
            CertificateOf::OpenPgp => "the OpenPGP keys".into(),
        },
        config.keys.certificate_subject
    ))?;
    let mut missing = 0;
    for drop in &config.drops {
        let formats: Vec<&str> = drop.formats.iter().map(|format| format.name()).collect();
        let root = shown(&drop.root);
        say(&match drop.action {
            Action::Sign => format!(
                "{root}: {} files below {}/ are signed by {}{}",
                formats.join(" and "),
                drop.templates.path(),
                drop.templates.identity(),
                if drop.create_keys {
                    ", whose key the first of them makes"
                } else {
                    ", whose key has to be made before"
                },
            ),
            Action::Unsign => format!(
                "{root}: {} files lose their signatures",
                formats.join(" and ")
            ),
        })?;
        if let Some(name) = &drop.public_key {
            say(&format!(
                "{root}: each project's public key is written to {}/{name}",
                drop.templates.path()
            ))?;
        }
        if let Some(grace) = drop.removal_grace {
            say(&format!(
                "{root}: a project's key is deleted when its last directory has been gone for {}",
                humantime::format_duration(grace)
            ))?;
        }
        if !drop.root.is_dir() {
            missing += 1;
            eprintln!("signdrop: {root}: there is no such directory");
        }
    }
    for mount in &config.mounts {
        let (root, at) = (shown(&mount.drop.root), shown(&mount.at));
        say(&format!(
            "{at}: {root}, mounted; {}",
            match mount.drop.action {
                Action::Sign => format!(
                    "what is signed by {} is seen when its writer has closed it",
                    mount.drop.templates.identity()
                ),
                Action::Unsign =>
                    "what loses its signatures is seen when its writer has closed it".into(),
            }
        ))?;
        for (path, shown) in [(&mount.drop.root, root), (&mount.at, at)] {
            if !path.is_dir() {
                missing += 1;
                eprintln!("signdrop: {shown}: there is no such directory");
            }
        }
    }
    if missing > 0 {
        return Err(Error::Some {
            failed: missing,
            all: config.drops.len() + 2 * config.mounts.len(),
        });
    }
    Ok(())
}
