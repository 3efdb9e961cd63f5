//! Progress on standard error: a bar on a terminal, plain lines elsewhere, or nothing.

use super::output::seconds;
use cipherlens::plan::{self, Plan, PlannedOperation, PlannedStep};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum Mode {
    /// A bar on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// One line per step.
    Plain,
    /// Nothing.
    None,
}

/// Progress through steps whose relative cost is known beforehand.
#[derive(Debug)]
pub(crate) struct Progress {
    style: Style,
    /// Estimated seconds of each step.
    estimates: Vec<f64>,
    /// Whether they are seconds, or only proportions.
    absolute: bool,
    done: usize,
    started: Instant,
    /// For each step how many of something dear it has, and what to call them.
    dear: (Vec<usize>, &'static str),
}

#[derive(Debug)]
enum Style {
    Bar(ProgressBar),
    Plain,
    Silent,
}

/// Resolution of the bar.
const TICKS: u64 = 1000;

impl Progress {
    /// Progress over steps with these estimated seconds.
    pub(crate) fn new(mode: Mode, estimates: Vec<f64>) -> Self {
        Self::with(mode, estimates, true)
    }

    /// Progress over steps of which only the proportions are known.
    pub(crate) fn of_proportions(mode: Mode, weights: Vec<f64>) -> Self {
        Self::with(mode, weights, false)
    }

    fn with(mode: Mode, estimates: Vec<f64>, absolute: bool) -> Self {
        let style = match mode {
            Mode::None => Style::Silent,
            Mode::Auto if std::io::stderr().is_terminal() => Style::Bar(bar()),
            Mode::Auto | Mode::Plain => Style::Plain,
        };
        Self { style, estimates, absolute, done: 0, started: Instant::now(), dear: (Vec::new(), "") }
    }

    /// Tells how many of something dear are still to come, of so many in each step.
    pub(crate) fn counting(self, each: Vec<usize>, what: &'static str) -> Self {
        Self { dear: (each, what), ..self }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, name: &str) {
        let text = format!("{name} ({}/{})", self.done + 1, self.estimates.len());
        match &self.style {
            Style::Bar(bar) => {
                bar.set_message(text);
                bar.set_prefix(self.eta_text());
                bar.set_position((self.fraction() * TICKS as f64) as u64);
            }
            Style::Plain | Style::Silent => {}
        }
    }

    /// The step that began last has ended.
    pub(crate) fn end(&mut self, name: &str, spent: Duration) {
        self.done = (self.done + 1).min(self.estimates.len());
        match &self.style {
            Style::Bar(bar) => {
                bar.set_prefix(self.eta_text());
                bar.set_position((self.fraction() * TICKS as f64) as u64);
            }
            Style::Plain => crate::output::tell!(
                "  {}/{} {name}: {} ({})",
                self.done,
                self.estimates.len(),
                seconds(spent.as_secs_f64()),
                self.eta_text()
            ),
            Style::Silent => {}
        }
    }

    /// All is done; the bar goes away.
    pub(crate) fn finish(&self) {
        if let Style::Bar(bar) = &self.style {
            bar.finish_and_clear();
        }
    }

    /// Share of the estimated work that is done, in [0, 1].
    fn fraction(&self) -> f64 {
        let all: f64 = self.estimates.iter().sum();
        if all > 0.0 {
            self.estimates[..self.done].iter().sum::<f64>() / all
        } else {
            self.done as f64 / self.estimates.len().max(1) as f64
        }
    }

    fn dear_text(&self) -> String {
        let (each, what) = &self.dear;
        match each.iter().skip(self.done).sum::<usize>() {
            0 => String::new(),
            1 => format!(", 1 {what}"),
            more => format!(", {more} {what}s"),
        }
    }

    fn eta_text(&self) -> String {
        match eta(&self.estimates, self.done, self.started.elapsed().as_secs_f64(), self.absolute) {
            _ if self.done == 0 && !self.absolute => "time left not known yet".into(),
            Some(left) => format!("{}{} left", seconds(left), self.dear_text()),
            None => "done".into(),
        }
    }
}

/// A count of many small equal steps: a bar on a terminal, nothing elsewhere. Any thread may advance it.
#[derive(Debug)]
pub(crate) struct CountBar(Option<ProgressBar>);

impl CountBar {
    /// So many steps of something.
    pub(crate) fn new(mode: Mode, count: usize, what: &'static str) -> Self {
        if mode != Mode::Auto || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(count as u64), ProgressDrawTarget::stderr()).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("  [{bar:32}] {pos}/{len} {msg}, {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(Some(bar))
    }
    /// One step more is done.
    pub(crate) fn advance(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }
    /// All is done; the bar goes away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Progress through the layers of a plan.
pub(crate) struct LayerBar {
    layer_of: Vec<usize>,
    state: Mutex<(Progress, Option<Running>)>,
}

/// The layer that runs: its index, its name, when it began.
type Running = (usize, String, Instant);

impl LayerBar {
    /// Of a plan that is going to be run.
    pub(crate) fn new(plan: &Plan, mode: Mode) -> Self {
        let layer_of = plan.layer_of_steps();
        let mut bootstraps = vec![0; plan.layers().len()];
        for (step, &layer) in plan.steps().iter().zip(&layer_of) {
            if let (PlannedOperation::Bootstrap(_), Some(count)) = (&step.operation, bootstraps.get_mut(layer)) {
                *count += 1;
            }
        }
        let progress = Progress::new(mode, plan.layers().iter().map(|l| l.seconds).collect()).counting(bootstraps, "bootstrap");
        Self { layer_of, state: Mutex::new((progress, None)) }
    }

    /// The run has ended.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (progress, layer) = &mut *state;
        if let Some((_, name, begun)) = layer.take() {
            progress.end(&name, begun.elapsed());
        }
        progress.finish();
    }
}

impl plan::Progress for LayerBar {
    fn step_started(&self, index: usize, step: &PlannedStep) {
        let next = self.layer_of.get(index).copied().unwrap_or(0);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (progress, layer) = &mut *state;
        if layer.as_ref().is_some_and(|(current, ..)| *current == next) {
            return;
        }
        if let Some((_, name, begun)) = layer.take() {
            progress.end(&name, begun.elapsed());
        }
        progress.begin(&step.layer);
        *layer = Some((next, step.layer.clone(), Instant::now()));
    }
    fn step_finished(&self, _: usize, _: &PlannedStep) {}
}

/// Seconds left: the estimates of what remains, scaled by how well the estimates of what is done came true.
///
/// Where estimates are seconds (`absolute`), the scale starts at 1 and trusts the measurement in proportion to the share of
/// the work done, fully from a quarter on.
fn eta(estimates: &[f64], done: usize, elapsed: f64, absolute: bool) -> Option<f64> {
    let past: f64 = estimates[..done].iter().sum();
    let left: f64 = estimates[done..].iter().sum();
    if done == estimates.len() {
        return None;
    }
    let measured = if past > 0.0 { elapsed / past } else { 1.0 };
    let share = if past + left > 0.0 { past / (past + left) } else { 0.0 };
    let trust = if absolute { (4.0 * share).min(1.0) } else { 1.0 };
    Some(left * (trust * measured + (1.0 - trust)))
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(TICKS), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("  [{bar:32}] {msg}  {elapsed} so far, {prefix}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eta_follows_the_measurement() {
        assert_eq!(eta(&[1.0, 3.0], 0, 0.0, true), Some(4.0));
        // A quarter of the work is enough to trust the measured speed: half as fast as estimated.
        assert_eq!(eta(&[1.0, 3.0], 1, 2.0, true), Some(6.0));
        assert_eq!(eta(&[1.0, 3.0], 2, 8.0, true), None);
        // Proportions: the measured speed from the first step on.
        assert_eq!(eta(&[1.0, 9.0], 1, 2.0, false), Some(18.0));
        assert_eq!(eta(&[], 0, 0.0, true), None);
        assert_eq!(eta(&[0.0, 0.0], 1, 1.0, true), Some(0.0));
    }

    #[test]
    fn what_is_dear_is_counted_down() {
        let mut progress = Progress::new(Mode::None, vec![1.0; 4]).counting(vec![0, 2, 0, 1], "bootstrap");
        let mut texts = Vec::new();
        for _ in 0..4 {
            texts.push(progress.dear_text());
            progress.end("a step", Duration::ZERO);
        }
        assert_eq!(texts, [", 3 bootstraps", ", 3 bootstraps", ", 1 bootstrap", ", 1 bootstrap"]);
        assert_eq!(progress.eta_text(), "done");
    }
}
