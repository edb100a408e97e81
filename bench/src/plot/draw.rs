//! From a description of a plot to SVG.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;

const WIDTH: u32 = 900;
/// Title and what stands below it.
const HEAD: u32 = 64;
const PANEL: u32 = 330;
const FONT: &str = "sans-serif";
const TITLE: u32 = 20;
const TEXT: u32 = 14;
/// Above a panel's names, and a row of them.
const TOP: u32 = 12;
const ROW: u32 = 20;
/// Where a panel's lines begin, and end.
const LEFT: i32 = 94;
const RIGHT: i32 = 872;
/// Of a name in the legend: its stroke, the space to its text, a letter of that.
const DASH: i32 = 18;
const GAP: i32 = 8;
const LETTER: i32 = 8;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const PALE: RGBColor = RGBColor(0x66, 0x66, 0x66);
const GRID: RGBColor = RGBColor(0xe3, 0xe3, 0xe3);
const SHADE: RGBColor = RGBColor(0xf4, 0xe3, 0xd7);
/// Told apart by the colour-blind, too. Source: Okabe and Ito, "Color Universal Design", 2008.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

/// A plot: panels below each other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) title: String,
    /// When, where, what.
    pub(crate) subtitle: String,
    pub(crate) panels: Vec<Panel>,
}

/// Lines over two axes, their names above them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    /// A part of the x axis that is set off.
    pub(crate) shade: Option<(f64, f64)>,
}

/// A line, in the coordinates of its panel's axes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// A dot at each point: where there are few.
    pub(crate) dots: bool,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The light lines would stand between the ticks.
        let light = hint.weight().allow_light_points();
        self.ticks.iter().map(|(at, _)| *at).filter(|_| !light).collect()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.text_at(*value)
    }
}

/// Draws it on a white ground: it is to be read on a dark page as well.
pub(crate) fn svg(figure: &Figure) -> Result<String> {
    let mut svg = String::new();
    let panels = figure.panels.len();
    let height = HEAD + PANEL * u32::try_from(panels)?;
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let heading = (FONT, TITLE).into_font().color(&INK);
        let below = (FONT, TEXT).into_font().color(&PALE);
        root.draw(&Text::new(figure.title.as_str(), (16, 12), heading)).map_err(failed)?;
        root.draw(&Text::new(figure.subtitle.as_str(), (16, 38), below)).map_err(failed)?;
        let (_, rest) = root.split_vertically(HEAD);
        for (area, panel) in rest.split_evenly((panels, 1)).iter().zip(&figure.panels) {
            draw(panel, area)?;
        }
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

fn draw(panel: &Panel, area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Result<()> {
    let Panel { x, y, lines, shade } = panel;
    let names = legend(lines.iter().map(|line| line.name.as_str()));
    let rows = names.last().map_or(0, |(_, row)| row + 1);
    let (above, area) = area.split_vertically(TOP + rows * ROW);
    for ((line, colour), (left, row)) in coloured(lines).zip(names) {
        let middle = i32::try_from(TOP + row * ROW + ROW / 2)?;
        let stroke = vec![(left, middle), (left + DASH, middle)];
        above.draw(&PathElement::new(stroke, colour.stroke_width(2))).map_err(failed)?;
        let style = (FONT, TEXT).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        let at = (left + DASH + GAP, middle);
        above.draw(&Text::new(line.name.as_str(), at, style)).map_err(failed)?;
    }
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .margin_right(28)
        .x_label_area_size(46)
        .y_label_area_size(84)
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(failed)?;
    if let Some((from, to)) = *shade {
        let ground = Rectangle::new([(from, y.from), (to, y.to)], SHADE.filled());
        chart.draw_series([ground]).map_err(failed)?;
    }
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(PALE)
        .label_style((FONT, TEXT).into_font().color(&INK))
        .axis_desc_style((FONT, TEXT).into_font().color(&INK))
        .x_labels(x.ticks.len())
        .y_labels(y.ticks.len())
        .x_desc(x.label.as_str())
        .y_desc(y.label.as_str())
        .draw()
        .map_err(failed)?;
    for (line, colour) in coloured(lines) {
        let points = line.points.iter().copied();
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2))).map_err(failed)?;
        if line.dots {
            let dots = line.points.iter().map(|at| Circle::new(*at, 4, colour.filled()));
            chart.draw_series(dots).map_err(failed)?;
        }
    }
    Ok(())
}

fn coloured(lines: &[Line]) -> impl Iterator<Item = (&Line, RGBColor)> {
    lines.iter().zip(COLOURS.into_iter().cycle())
}

/// Where the names stand: pixels from the left, and the row. A name is not measured, for that needs
/// the reader's font; wide letters were assumed.
fn legend<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(i32, u32)> {
    let (mut left, mut row) = (LEFT, 0);
    let mut places = Vec::new();
    for name in names {
        let letters = i32::try_from(name.chars().count()).unwrap_or(0);
        let width = DASH + GAP + letters * LETTER;
        if left > LEFT && left + width > RIGHT {
            (left, row) = (LEFT, row + 1);
        }
        places.push((left, row));
        left += width + 3 * GAP;
    }
    places
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_beside_each_other_until_a_row_is_full() {
        let name = "x".repeat(30);
        let places = legend([name.as_str(); 5].into_iter());
        assert_eq!(places.iter().map(|(_, row)| *row).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
        assert_eq!((places[0].0, places[2].0), (LEFT, LEFT));
        assert!(places[1].0 >= LEFT + 30 * LETTER);
        assert_eq!(legend(["y".repeat(200).as_str()].into_iter()), [(LEFT, 0)]);
    }

    #[test]
    fn a_figure_has_its_ground_its_lines_and_what_stands_at_the_axes() {
        let line =
            Line { name: "POST & co".to_owned(), points: vec![(0.0, 1.0), (2.0, 3.0)], dots: true };
        let panel = Panel {
            x: Axis::linear("seconds", 2.0),
            y: Axis::linear("MiB", 3.0),
            lines: vec![line],
            shade: Some((0.5, 1.0)),
        };
        let figure = Figure {
            title: "A title".to_owned(),
            subtitle: "A day".to_owned(),
            panels: vec![panel.clone(), panel],
        };
        let svg = svg(&figure).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        let height = (HEAD + 2 * PANEL).to_string();
        assert!(svg.contains(&format!(r#"width="900" height="{height}""#)), "{svg}");
        assert!(svg.contains(r##"fill="#FFFFFF""##), "a ground of its own: {svg}");
        for text in ["A title", "A day", "seconds", "MiB", "POST &amp; co", "1.5"] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text}: {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 4, "{svg}");
    }
}
