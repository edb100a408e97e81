//! Man pages: one for each binary and each of its commands.

use anyhow::Result;
use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::{BINARIES, Release, VERSION};

/// What every text of the roff library begins with; a page needs it once.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// A man page.
#[derive(Debug)]
pub struct Page {
    /// As in `leads-api-keys-create.1`.
    pub file: String,
    /// In roff.
    pub text: String,
}

/// The pages of a binary, its own first.
///
/// # Errors
/// None that can be met: pages are written into memory.
pub fn pages(command: Command, release: &Release) -> Result<Vec<Page>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, None, release, &mut pages)?;
    Ok(pages)
}

fn add(
    command: &Command,
    above: Option<&str>,
    release: &Release,
    pages: &mut Vec<Page>,
) -> Result<()> {
    let name = page_name(command);
    let text = page(command, above, release)?;
    pages.push(Page { file: format!("{name}.1"), text });
    for inner in shown(command) {
        add(inner, Some(&name), release, pages)?;
    }
    Ok(())
}

/// As in `leads-api-keys-create`.
fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|inner| !inner.is_hide_set())
}

fn page(command: &Command, above: Option<&str>, release: &Release) -> Result<String> {
    let name = page_name(command);
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .date(if release.has_a_day() { release.date.as_str() } else { "" })
        .source(format!("leads {VERSION}"))
        .manual("leads");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if shown(command).next().is_some() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    environment(&mut rest, command);
    files(&mut rest, &name, command, above.is_none());
    exit_status(&mut rest);
    see_also(&mut rest, command, above);
    rest.to_writer(&mut text)?;
    // Two breaks around an empty line are one.
    let text = String::from_utf8(text)?.replace(PREAMBLE, "").replace("\n.br\n\n.br\n", "\n.sp\n");
    let text = ascii(&text);
    Ok(PREAMBLE.to_owned() + &text.lines().map(marked).collect::<String>())
}

/// In characters that every formatter reads, whatever it takes the encoding for.
fn ascii(text: &str) -> String {
    let written = text.chars().map(|c| match c {
        c if c.is_ascii() => c.to_string(),
        c => format!("\\[u{:04X}]", u32::from(c)),
    });
    written.collect()
}

/// A line with its code in bold: help is written with backticks, which roff would make quotes.
fn marked(line: &str) -> String {
    let pieces: Vec<_> = line.split('`').collect();
    if pieces.len().is_multiple_of(2) {
        return format!("{line}\n");
    }
    let pieces = pieces.iter().enumerate().map(|(place, piece)| {
        if place % 2 == 1 { format!("\\fB{piece}\\fR") } else { (*piece).to_owned() }
    });
    pieces.collect::<String>() + "\n"
}

fn variable(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

fn has(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|arg| variable(arg).is_some_and(|found| found == name))
}

/// Both services have one, and no other command has.
fn is_service(command: &Command) -> bool {
    has(command, "METRICS_LISTEN")
}

fn item(roff: &mut Roff, name: impl Into<String>, text: impl Into<String>) {
    roff.control("TP", []).text([bold(name)]).text([roman(text)]);
}

fn environment(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman("An option on the command line wins over its variable.")]);
    for arg in command.get_arguments() {
        if let (Some(name), Some(flag)) = (variable(arg), arg.get_long()) {
            item(roff, name, format!("Sets `--{flag}`."));
        }
    }
    if has(command, "KAFKA_BROKERS") {
        let text = "Any other property of librdkafka, its name in capitals with underscores, as in \
                    `KAFKA_SECURITY_PROTOCOL=SASL_SSL`. Those that would break a promise of the \
                    service are refused by name.";
        item(roff, "KAFKA_PROPERTY", text);
    }
    if is_service(command) {
        let text = "Where traces go, over HTTP. Without it there are none. The other `OTEL_` \
                    variables hold as everywhere.";
        item(roff, "OTEL_EXPORTER_OTLP_ENDPOINT", text);
    }
}

fn files(roff: &mut Roff, name: &str, command: &Command, is_top: bool) {
    if !is_top && !is_service(command) {
        return;
    }
    let binary = BINARIES.into_iter().find(|binary| name.starts_with(binary)).unwrap_or(name);
    let service = binary.trim_start_matches("leads-");
    roff.control("SH", ["FILES"]);
    roff.text([roman("It reads none but those that options name. The systemd units read:")]);
    item(roff, "/etc/leads/leads.env", "Variables of both services, one NAME=value a line.");
    item(roff, format!("/etc/leads/{service}.env"), format!("Variables of {binary} alone."));
}

fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    item(roff, "0", "Done.");
    item(roff, "1", "The check or the work failed; standard error or the log says why.");
    item(roff, "2", "Wrong usage or configuration.");
}

fn see_also(roff: &mut Roff, command: &Command, above: Option<&str>) {
    let inner = shown(command).map(page_name);
    let other = BINARIES.map(str::to_owned);
    let mut names: Vec<_> =
        above.map(str::to_owned).into_iter().chain(inner).chain(other).collect();
    names.retain(|name| *name != page_name(command));
    let mut seen = Vec::new();
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let end = if place + 1 == names.len() { "(1)" } else { "(1), " };
        line.extend([bold(name), roman(end)]);
    }
    roff.text(line);
}
