//! The archive: what is in it, and that it is the same each time.

use std::path::Path;
use std::process::Command;

use leads_dist::{BINARIES, VERSION};
use leads_testkit::Folder;

use crate::{answer, binaries, release, root, run};

fn pack(out: &Path) -> String {
    let name = format!("leads-{VERSION}-{}", release().target);
    answer(
        Command::new(root().join("dev/dist"))
            .args([
                "--binaries".as_ref(),
                binaries().as_os_str(),
                "--out".as_ref(),
                out.as_os_str(),
            ])
            .current_dir(root()),
    );
    name
}

#[test]
fn an_archive_has_what_an_operator_needs_and_is_the_same_each_time() {
    let folder = Folder::new();
    let out = folder.path();
    let name = pack(out);
    let archive = out.join(format!("{name}.tar.gz"));
    let listed = answer(Command::new("tar").args(["-tzf"]).arg(&archive));
    let files: Vec<_> = listed.lines().filter(|line| !line.ends_with('/')).collect();
    let mut sorted = files.clone();
    sorted.sort_unstable();
    assert_eq!(files, sorted);
    let mut expected = vec![
        "bin/leads-api",
        "bin/leads-consumer",
        "share/man/man1/leads-api.1",
        "share/man/man1/leads-api-serve.1",
        "share/man/man1/leads-consumer-rebuild-rollback.1",
        "CHANGELOG.md",
        "LICENSE",
        "SHA256SUMS",
        "THIRD-PARTY-LICENSES.txt",
        "sbom.cdx.json",
    ];
    for binary in BINARIES {
        assert!(files.contains(&format!("{name}/share/zsh/site-functions/_{binary}").as_str()));
        let fish = format!("{name}/share/fish/vendor_completions.d/{binary}.fish");
        assert!(files.contains(&fish.as_str()), "{files:?}");
        assert!(
            files.contains(&format!("{name}/share/bash-completion/completions/{binary}").as_str())
        );
    }
    if root().join("deploy/systemd").is_dir() {
        expected.push("systemd/leads-api.service");
    }
    for file in expected {
        assert!(files.contains(&format!("{name}/{file}").as_str()), "{file}: {files:?}");
    }

    answer(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(out));
    let unpacked = out.join(&name);
    answer(
        Command::new("sha256sum")
            .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
            .current_dir(&unpacked),
    );
    answer(
        Command::new("sha256sum")
            .args(["--check", "--strict", "--quiet"])
            .arg(format!("{name}.sha256"))
            .current_dir(out),
    );
    for binary in BINARIES {
        let path = unpacked.join("bin").join(binary);
        let told = answer(Command::new(&path).arg("-V"));
        assert_eq!(told, format!("{binary} {VERSION}\n"));
        let sections = answer(Command::new("readelf").args(["--sections", "--wide"]).arg(&path));
        assert!(
            !sections.contains(".debug_info") && !sections.contains(".symtab"),
            "{binary} is stripped"
        );
        let needed = answer(Command::new("readelf").args(["--dynamic", "--wide"]).arg(&path));
        let mut libraries: Vec<_> = needed
            .lines()
            .filter_map(|line| line.split_once("Shared library: [")?.1.split(']').next())
            .filter(|library| !library.starts_with("ld-linux"))
            .collect();
        libraries.sort_unstable();
        assert_eq!(libraries, ["libc.so.6", "libgcc_s.so.1", "libm.so.6"], "{binary}");
    }

    let verbose = answer(Command::new("tar").args(["--numeric-owner", "-tvzf"]).arg(&archive));
    assert!(verbose.lines().all(|line| line.contains(" 0/0 ")), "{verbose}");
    let first = std::fs::read(&archive).expect("the archive");
    pack(out);
    assert!(std::fs::read(&archive).expect("the archive") == first, "other bytes than before");
}

#[test]
fn binaries_of_two_builds_are_refused() {
    let folder = Folder::new();
    for (name, commit) in [("leads-api", "a"), ("leads-consumer", "b")] {
        let said = format!(
            "#!/bin/sh\n[ \"$1\" = -V ] && echo '{name} 0.1.0' || printf 'commit: {commit}\\ntarget: t\\n'\n"
        );
        let path = folder.write(name, said.as_bytes());
        answer(Command::new("chmod").arg("+x").arg(path));
    }
    let output = run(Command::new(root().join("dev/dist"))
        .args(["--binaries".as_ref(), folder.path().as_os_str()])
        .args(["--out".as_ref(), folder.path().join("out").as_os_str()])
        .current_dir(root()));
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("not of one build"), "{errors}");
}
