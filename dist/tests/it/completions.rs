//! Completions, in the shells themselves.

use std::fs;
use std::process::Command;

use leads_dist::completions::scripts;
use leads_testkit::Folder;

use crate::{answer, is_there};

/// Writes the scripts and gives the path of one.
fn script(folder: &Folder, place: &str) -> String {
    for command in leads_dist::commands() {
        for (file, text) in scripts(command) {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            fs::write(path, text).expect("the script");
        }
    }
    let path = folder.path().join(place);
    assert!(path.exists(), "{place}");
    path.to_str().expect("a path").to_owned()
}

/// What bash offers behind `words`; the last of them is being written.
fn offered_by_bash(words: &[&str]) -> Vec<String> {
    let folder = Folder::new();
    let name = words[0];
    let script = script(&folder, &format!("share/bash-completion/completions/{name}"));
    let ask = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        [[ $(complete -p "$1") =~ -F\ ([^ ]+) ]] && function=${BASH_REMATCH[1]}
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let text = answer(Command::new("bash").args(["-c", ask, "bash", &script]).args(words));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    assert_eq!(offered_by_bash(&["leads-api", "ser"]), ["serve"]);
    assert_eq!(offered_by_bash(&["leads-api", "keys", "cre"]), ["create"]);
    assert_eq!(offered_by_bash(&["leads-api", "keys", "create", "--works"]), ["--workspace"]);
    assert_eq!(offered_by_bash(&["leads-api", "keys", "create", "--kind", ""]), ["prod", "dev"]);
    assert_eq!(offered_by_bash(&["leads-consumer", "dlq", "red"]), ["redrive"]);
    assert_eq!(offered_by_bash(&["leads-consumer", "rebuild", "--acc"]), ["--accept-differences"]);
}

#[test]
fn zsh_takes_its_scripts() {
    if !is_there("zsh") {
        return;
    }
    let folder = Folder::new();
    for name in leads_dist::BINARIES {
        let script = script(&folder, &format!("share/zsh/site-functions/_{name}"));
        let ask =
            r#"autoload -Uz compinit && compinit -u -D && source "$1" && (( $+functions[_$2] ))"#;
        answer(Command::new("zsh").args(["-f", "-c", ask, "zsh", &script, name]));
        let text = fs::read_to_string(&script).expect("the script");
        assert!(text.starts_with(&format!("#compdef {name}\n")), "{name}");
    }
}

#[test]
fn fish_completes_commands_and_options() {
    if !is_there("fish") {
        return;
    }
    let folder = Folder::new();
    for (line, expected) in [
        ("leads-api keys cre", "create"),
        ("leads-api serve --publish-t", "--publish-timeout"),
        ("leads-consumer rebuild --acc", "--accept-differences"),
    ] {
        let name = line.split(' ').next().expect("a name");
        let script = script(&folder, &format!("share/fish/vendor_completions.d/{name}.fish"));
        let ask = format!("source {script}; complete --do-complete '{line}'");
        let text = answer(
            Command::new("fish").args(["--no-config", "-c", &ask]).env("HOME", folder.path()),
        );
        let words: Vec<_> = text.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, [expected], "{line}");
    }
}
