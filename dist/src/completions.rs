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
        let text = String::from_utf8_lossy(&text).into_owned();
        (place, if shell == Shell::Bash { mended(&text, &name) } else { text })
    });
    written.collect()
}

/// `clap_complete` 4.6.11 calls a command whose name has a hyphen one thing where it finds it, and another
/// where it looks it up, so that nothing would be offered behind it. The fault upstream:
/// <https://github.com/clap-rs/clap/issues/6421>.
fn mended(bash: &str, name: &str) -> String {
    bash.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"))
}
