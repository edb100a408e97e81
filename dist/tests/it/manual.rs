//! Man pages hold what `--help` holds.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use leads_dist::manual::{Page, pages};
use leads_testkit::Folder;

use crate::{is_there, release, run};

fn all() -> Vec<Page> {
    let commands = leads_dist::commands().into_iter();
    commands.flat_map(|command| pages(command, &release()).expect("pages")).collect()
}

/// As a reader sees it: without marks, and the escapes undone.
fn plain(page: &Page) -> String {
    let text = ["\\fB", "\\fI", "\\fR"]
        .iter()
        .fold(page.text.clone(), |text, mark| text.replace(mark, ""));
    text.replace("\\-", "-").replace("\\*(Aq", "'")
}

/// Each command with the name of its page.
fn walk(command: &clap::Command, name: &str, seen: &mut Vec<(String, clap::Command)>) {
    seen.push((name.to_owned(), command.clone()));
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        walk(inner, &format!("{name}-{}", inner.get_name()), seen);
    }
}

#[test]
fn each_command_has_a_page_with_its_options_variables_and_defaults() {
    let pages = all();
    let mut commands = Vec::new();
    for mut command in leads_dist::commands() {
        command.build();
        let name = command.get_name().to_owned();
        walk(&command, &name, &mut commands);
    }
    let named: BTreeSet<_> = pages.iter().map(|page| page.file.clone()).collect();
    let expected: BTreeSet<_> = commands.iter().map(|(name, _)| format!("{name}.1")).collect();
    assert_eq!(named, expected);
    assert!(
        named.contains("leads-api-keys-create.1") && named.contains("leads-consumer-dlq-redrive.1")
    );
    for (name, command) in &commands {
        let page = pages.iter().find(|page| page.file == format!("{name}.1")).expect("the page");
        let text = plain(page);
        for arg in command.get_arguments() {
            let Some(flag) = arg.get_long() else { continue };
            assert!(text.contains(&format!("--{flag}")), "{name}: --{flag}");
            if let Some(variable) = arg.get_env() {
                let heading = format!(".TP\n{}\nSets --{flag}.\n", variable.to_string_lossy());
                assert!(text.contains(&heading), "{name}: {heading}");
            }
            let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
            for default in defaults.filter(|_| arg.get_action().takes_values()) {
                assert!(text.contains(&*default), "{name}: --{flag}: {default}");
            }
        }
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS"] {
            assert!(
                text.contains(&format!(".SH {section}\n"))
                    || text.contains(&format!(".SH \"{section}\"\n")),
                "{name}: {section}"
            );
        }
        assert!(!text.contains('`'), "{name}: code is bold");
    }
}

#[test]
fn pages_refer_to_pages_that_are_there() {
    let pages = all();
    let files: BTreeSet<_> = pages.iter().map(|page| page.file.as_str()).collect();
    for page in &pages {
        let text = plain(page);
        let line = text.lines().last().expect("a line");
        assert!(text.contains("\n.SH \"SEE ALSO\"\n"), "{}", page.file);
        for other in line.split(", ") {
            let name = other.strip_suffix("(1)").unwrap_or_else(|| panic!("{}: {line}", page.file));
            assert!(files.contains(format!("{name}.1").as_str()), "{}: {name}", page.file);
            assert_ne!(format!("{name}.1"), page.file);
        }
    }
}

#[test]
fn a_page_holds_no_secret_of_its_builder() {
    for page in all() {
        for default in ["DATABASE_URL", "KAFKA_BROKERS"] {
            let value = std::env::var(default).unwrap_or_default();
            assert!(value.is_empty() || !page.text.contains(&value), "{}: {default}", page.file);
        }
    }
}

#[test]
fn formatters_have_nothing_to_say() {
    let folder = Folder::new();
    let checks: [(&str, &[&str]); 2] = [
        ("groff", &["-man", "-wall", "-Tutf8", "-z"]),
        ("mandoc", &["-T", "lint", "-W", "warning"]),
    ];
    for (program, arguments) in checks {
        if !is_there(program) {
            continue;
        }
        for page in all() {
            let path = folder.path().join(&page.file);
            fs::write(&path, &page.text).expect("the page");
            let output = run(Command::new(program).args(arguments).arg(&path));
            let said = [output.stdout, output.stderr].concat();
            assert_eq!(String::from_utf8_lossy(&said), "", "{program} {}", page.file);
        }
    }
}
