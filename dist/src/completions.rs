//! Completions for shells, each where its shell looks for it.

use clap_complete::Shell;

/// The scripts of one binary: where each belongs below `/usr`, and its text.
pub fn scripts(mut command: clap::Command) -> Vec<(String, String)> {
    let name = command.get_name().to_owned();
    let places = [
        (Shell::Bash, format!("share/bash-completion/completions/{name}")),
        (Shell::Zsh, format!("share/zsh/site-functions/_{name}")),
        (Shell::Fish, format!("share/fish/vendor_completions.d/{name}.fish")),
    ];
    let written = places.into_iter().map(|(shell, place)| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut text);
        (place, String::from_utf8_lossy(&text).into_owned())
    });
    written.collect()
}
