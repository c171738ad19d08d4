#include "tools/suite_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <optional>

#include "io/file_stamp.h"
#include "kernels/range.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/lay_out.h"
#include "tools/machine.h"
#include "tools/passes.h"
#include "tools/remedies.h"
#include "tools/resume_point.h"
#include "tools/run_checkpoints.h"
#include "tools/run_file.h"

namespace gsae {

namespace {

// What the products of this run could reach, before its memory is taken.
void measure_peaks(const Context& ctx, Run& run) {
  const DType model_dtype = run.options.data.compute(), sae_dtype = run.options.sae_precision();
  const bool tf32 = run.options.precision == "tf32";
  const bool same = run.model_folder.empty() || (model_dtype == sae_dtype && !tf32);
  run.sae_peak = measure_product_peak(ctx, sae_dtype, tf32);
  run.model_peak = same ? run.sae_peak : measure_product_peak(ctx, model_dtype);
}

// Where the run goes if --out does not say.
std::string default_folder(const Run& run) {
  // a model's folder may be given as "." or with a slash at its end
  const auto last_name = [](const std::string& path) {
    const std::filesystem::path p = std::filesystem::absolute(path).lexically_normal();
    return (p.has_filename() ? p.filename() : p.parent_path().filename()).string();
  };
  const std::string from = run.model_folder.empty() ? "activations" : last_name(run.options.data.model);
  return fmt::format("runs/{}/{}", from, suite_name(run.plan.members));
}

void say(const Run& run, const std::string& text) {
  if (!run.options.common.quiet) print(stdout, text + "\n");
}

StepKind step_kind(const TrainOptions& o) {
  return o.sae_step == "dense" ? StepKind::kDense : o.sae_step == "sparse" ? StepKind::kSparse : StepKind::kAuto;
}

// A training run: the suite in as many passes over the data as it takes, and what becomes of it.
class SuiteRun {
 public:
  SuiteRun(Context& ctx, Run& run, RunSource source) : ctx_(ctx), run_(run), source_(std::move(source)) {}

  void run() {
    catch_interrupts();
    if (!run_.options.resume.empty()) {
      if (has_finished(run_.options.resume)) return;
      ResumePoint point = find_resume_point(run_, ctx_.device());
      checkpoint_ = std::move(point.checkpoint), state_ = std::move(point.state);
      lines_lost_ = point.lines_lost;
      say(run_, checkpoint_
                    ? fmt::format("going on from {}", checkpoint_->path())
                    : run_.options.resume + ": was stopped before its first checkpoint: it starts from its beginning");
    }
    make_passes();
    // of one place and width, whatever the sparsities
    if (!run_.options.init.empty())
      given_ = std::make_shared<SavedParameters>(run_.options.init, run_.saes[0].width, run_.saes[0].member.latents);
    for (size_t i = 0; i < passes_.size(); ++i) {
      if (passes_.size() > 1)
        say(run_, fmt::format("pass {} of {}: {} SAEs", i + 1, passes_.size(), passes_[i].saes.size()));
      say(run_, plans_[i].memory.table());
    }
    for (size_t i = 0; i < passes_.size(); ++i)
      if (const MemoryPlan& memory = plans_[i].memory; !memory.fits())
        memory.check(describe_ways(cheapest_ways(choices(passes_[i].saes), source_.plan), memory));
    const auto opened = open_folder();
    RunFolder& folder = *opened;
    require_space(folder);
    RunCheckpoints checkpoints(folder.checkpoints(),
                               {.seconds = run_.plan.checkpoint_seconds,
                                .share = run_.plan.checkpoint_share,
                                .tokens = run_.plan.checkpoint_tokens,
                                .keep = run_.options.keep},
                               shared_state());
    take_over_results(folder);
    measure_peaks(ctx_, run_);
    for (size_t i = results_passes_; i < passes_.size(); ++i) {
      if (i > results_passes_ && interrupted())
        throw Interrupted(fmt::format("interrupted after pass {} of {}: {}{}", i, passes_.size(), where(folder),
                                      how_to_go_on(folder)));
      train(passes_[i], plans_[i], folder, checkpoints);
    }
    if (interrupted())
      throw Interrupted(fmt::format("trained, not evaluated: {} in {}{}",
                                    results_.size() == 1 ? "the SAE is" : "the SAEs are", where(folder),
                                    how_to_go_on(folder)));
    release_interrupts();  // the results are there: nothing is lost with the evaluation
    if (source_.evaluate) source_.evaluate(results_, plans_[0], evaluated_bytes());
    folder.finish(run_.options.given);
    print(stdout, fmt::format("wrote {}\n", where(folder)));
    const bool gpu = ctx_.device() == Device::kCuda;
    int64_t planned = 0;
    for (const RunPlan& plan : plans_) planned = std::max(planned, plan.memory.total());
    say(run_, fmt::format("{} {} (planned {})", gpu ? "device memory used" : "peak resident memory",
                          format_bytes(gpu ? device_used_ : peak_resident_memory()), format_bytes(planned)));
    std::string lost;
    if (checkpoints.failures() > 0)
      lost = fmt::format("{} of its checkpoints could not be written: see {}/train.jsonl", checkpoints.failures(),
                         folder.path());
    if (const int64_t lines = folder.missing_lines(); lines > 0)
      lost += fmt::format("{}{} lines of {}/train.jsonl could not be written", lost.empty() ? "" : "; and ", lines,
                          folder.path());
    if (!lost.empty()) throw Error("the run has finished and its results are whole, but " + lost);
  }

 private:
  std::string how_to_go_on(const RunFolder& folder) const {
    return run_.can_go_on ? fmt::format("; go on with: gemma_sae train --resume {}", folder.path())
                          : "; a run that reads standard input cannot go on";
  }

  std::unique_ptr<RunFolder> open_folder() {
    if (!run_.options.resume.empty()) {
      auto folder = std::make_unique<RunFolder>(run_.options.resume, state_ ? state_->log_bytes : 0);
      if (checkpoint_) remove_checkpoints_after(checkpoint_->path());
      if (lines_lost_) folder->log({{"lines_lost_before_step", state_->step}});
      return folder;
    }
    auto folder = std::make_unique<RunFolder>(run_.options.out.empty() ? default_folder(run_) : run_.options.out);
    write_run_file(folder->path(), {run_.options.given, false});
    return folder;
  }

  TrainingState shared_state() const {
    TrainingState s;
    for (size_t i = 0; i < passes_.size(); ++i)
      s.passes.push_back({passes_[i].saes, plans_[i].suite.rows, plans_[i].contexts});
    s.device = name(ctx_.device());
    for (const std::string& file : run_.inputs) s.inputs.push_back(stamp_file(file));
    if (state_) s.results = state_->results;
    return s;
  }

  // What one checkpoint takes on the disk, for as many as are there at a time: those kept, and one that is written.
  int64_t checkpoint_space() const {
    int64_t most = 0;
    for (size_t i = 0; i < passes_.size(); ++i) {
      int64_t bytes = 0;
      for (const size_t sae : passes_[i].saes)
        bytes += measure<SaeState>(run_.saes[sae].width, run_.saes[sae].member.latents, DType::kF32);
      if (!run_.options.saves_rows())
        bytes += plans_[i].suite.rows * RowOrigins::bytes_per_row(run_.options.data.context);
      else
        for (const int64_t width : passes_[i].widths)
          bytes += plans_[i].suite.rows * width * int64_t(size_of(run_.options.sae_precision()));
      most = std::max(most, bytes);
    }
    const bool any = run_.can_go_on && (run_.plan.checkpoint_seconds > 0 || run_.plan.checkpoint_tokens > 0);
    return any ? most * (run_.options.keep + 1) : 0;
  }

  void require_space(const RunFolder& folder) const {
    int64_t results = 0;
    for (const Pass& pass : passes_) results += result_bytes(pass.saes);
    folder.require_space(results, checkpoint_space());
  }

  // What an earlier process of this run has left: the results of passes that are done are taken over, those of others
  // were not counted yet and will be written again.
  void take_over_results(const RunFolder& folder) {
    if (run_.options.resume.empty()) return;
    results_passes_ = state_ ? size_t(state_->pass - 1) : 0;
    if (state_)
      for (const TrainingState::Result& r : state_->results)
        if (r.sae < run_.saes.size()) run_.saes[r.sae].input_scale = r.input_scale;
    for (size_t p = 0; p < passes_.size(); ++p) {
      Pass& pass = passes_[p];
      pass.outcomes.resize(pass.saes.size());
      for (size_t i = 0; i < pass.saes.size(); ++i) {
        if (state_)
          for (const TrainingState::Result& r : state_->results)
            if (r.sae == pass.saes[i]) pass.outcomes[i] = {r.l0, r.lambda};
        if (p < results_passes_) pass.steps_done = run_.plan.steps;
        TrainedSae result = trained(folder, pass, i);
        if (p >= results_passes_) {
          result.discard();
          continue;
        }
        const SaeRecord& sae = run_.saes[pass.saes[i]];
        const std::string path = result.find();
        if (path.empty())
          throw Error(fmt::format("{}: {} was trained, and its result is not there any more", folder.path(),
                                  sae.member.name()));
        result.adopt(path, sae.width, pass.outcomes[i].l0);
        results_.push_back(std::move(result));
      }
    }
  }

  TrainedSae trained(const RunFolder& folder, const Pass& pass, size_t i) const {
    return TrainedSae(
        {.run = folder.path(), .several_sites = count_sites(run_.plan.members) > 1, .alone = run_.saes.size() == 1},
        describe(pass, i), run_.saes[pass.saes[i]].member.latents);
  }

  std::string where(const RunFolder& folder) const {
    return results_.size() == 1 ? results_[0].path() : fmt::format("{} SAEs below {}", results_.size(), folder.path());
  }

  std::vector<SaeShape> shapes(const std::vector<size_t>& saes) const {
    std::vector<SaeShape> shapes;
    for (const size_t i : saes) {
      const SaeRecord& s = run_.saes[i];
      shapes.push_back({{s.member.site, s.member.layer}, s.width, s.member.latents, s.member.l0});
    }
    return shapes;
  }

  RunChoices choices(const std::vector<size_t>& saes) const {
    RunChoices c = source_.choices;
    c.saes = shapes(saes);
    return c;
  }

  // The suite as --passes wants it: in one part, in as few as fit, or in so many of about a size.
  std::vector<std::vector<size_t>> split() const {
    const auto part = [](const std::vector<int>& saes) { return std::vector<size_t>(saes.begin(), saes.end()); };
    std::vector<int> all(run_.saes.size());
    std::iota(all.begin(), all.end(), 0);
    const std::vector<SaeShape> suite = shapes(part(all));
    std::vector<std::vector<int>> parts{all};
    if (run_.plan.passes == 0) {
      parts = split_into_passes(
          suite, [&](const std::vector<int>& saes) { return source_.plan(choices(part(saes))).memory.fits(); });
      if (parts.empty()) parts = {all};  // not even one by one: the plan of all says what would help
    }
    for (size_t most = all.size() / std::max<int64_t>(run_.plan.passes, 1); run_.plan.passes > 1; ++most) {
      parts = split_into_passes(suite, [&](const std::vector<int>& saes) { return saes.size() <= most; });
      if (!parts.empty() && int64_t(parts.size()) <= run_.plan.passes) break;
    }
    std::vector<std::vector<size_t>> result;
    for (const std::vector<int>& saes : parts) result.push_back(part(saes));
    return result;
  }

  void make_passes() {
    std::vector<std::vector<size_t>> parts;
    if (state_)
      for (const TrainingState::PassSizes& pass : state_->passes) parts.push_back(pass.saes);
    else parts = split();
    for (const std::vector<size_t>& saes : parts) {
      Pass pass;
      pass.saes = saes, pass.number = int64_t(passes_.size()) + 1, pass.of = int64_t(parts.size());
      for (const SaeShape& place : places_of(shapes(saes)))
        pass.places.push_back(place.place), pass.widths.push_back(place.width);
      passes_.push_back(std::move(pass));
      RunChoices c = choices(saes);
      if (state_) {  // as it began, whatever memory there is now
        const TrainingState::PassSizes& sizes = state_->passes[passes_.size() - 1];
        c.buffer = sizes.buffer_rows, c.model_batch = sizes.contexts;
      }
      plans_.push_back(source_.plan(c));
    }
  }

  int64_t result_bytes(const std::vector<size_t>& saes) const {
    int64_t bytes = 0;
    for (const size_t i : saes) bytes += measure<SaeParameters>(run_.saes[i].width, run_.saes[i].member.latents);
    return bytes;
  }
  // What the evaluation holds of the results at a time: those of a pass, for which there was room.
  int64_t evaluated_bytes() const {
    int64_t bytes = 0;
    for (const Pass& pass : passes_) bytes = std::max(bytes, result_bytes(pass.saes));
    return bytes;
  }

  std::vector<SaeSuite::Member> members(const Pass& pass) const {
    std::vector<SaeSuite::Member> members;
    for (const size_t i : pass.saes) {
      const SaeRecord& s = run_.saes[i];
      const Place at{s.member.site, s.member.layer};
      const auto place = std::find(pass.places.begin(), pass.places.end(), at) - pass.places.begin();
      members.push_back({s.recipe, place, s.member.latents});
    }
    return members;
  }

  // From the plan to the results.
  void train(Pass& pass, const RunPlan& plan, RunFolder& folder, RunCheckpoints& checkpoints) {
    const TrainOptions& o = run_.options;
    Buffer source_memory, buffer_memory, suite_memory;
    const bool goes_on = state_ && state_->filled && state_->pass == pass.number;
    if (goes_on) load_tokens(*checkpoint_, state_->source);
    const std::unique_ptr<RowSource> source =
        source_.open(pass, plan, source_memory, goes_on ? &state_->source : nullptr);
    const auto buffer =
        allocate<ActivationBuffer>(ctx_.device(), buffer_memory, plan.suite.rows, pass.widths, o.sae_precision(),
                                   source->chunk(), run_.plan.batch, o.common.seed, !o.no_shuffle);
    const auto suite = allocate<SaeSuite>(ctx_.device(), suite_memory, ctx_.device(), pass.widths, members(pass),
                                          o.sae_precision(), step_kind(o));
    say(run_, describe(pass));
    Training training(ctx_, run_, pass, *source, *buffer, *suite, folder, checkpoints,
                      pass.number == pass.of ? std::move(given_) : given_);
    if (goes_on) training.resume(*checkpoint_, *state_);
    checkpoint_.reset();
    training.run();
    const bool whole = pass.stopped.empty();
    for (size_t i = 0; i < pass.saes.size(); ++i) {
      TrainedSae result = trained(folder, pass, i);
      const SaeState& state = suite->trainer(int64_t(i)).state();
      if (whole) result.write(ctx_, state, pass.outcomes[i].l0);
      else result.write_interrupted(ctx_, state, pass.outcomes[i].l0, pass.steps_done);
      results_.push_back(std::move(result));
    }
    device_used_ = std::max(device_used_, plan.memory.available() - available_memory(ctx_));
    if (whole) return save_end_of(pass, folder, checkpoints);
    std::string what = fmt::format("{}; {} after step {} of {} {} in {}", pass.stopped,
                                   pass.saes.size() == 1 ? "the SAE as it was" : "the SAEs as they were",
                                   pass.steps_done, run_.plan.steps, pass.saes.size() == 1 ? "is" : "are",
                                   pass.saes.size() == 1 ? results_.back().path() : folder.path() + "/interrupted");
    if (!interrupted()) throw Error(what);
    if (pass.saved || !run_.can_go_on) what += how_to_go_on(folder);
    else what += "; its state could not be saved, see above for why";
    throw Interrupted(what);
  }

  // From here on the pass's results are what there is of it, and the next one begins from nothing.
  void save_end_of(const Pass& pass, RunFolder& folder, RunCheckpoints& checkpoints) {
    if (!run_.can_go_on) return;
    for (size_t i = 0; i < pass.saes.size(); ++i)
      checkpoints.add_result(
          {pass.saes[i], pass.outcomes[i].l0, pass.outcomes[i].lambda, run_.saes[pass.saes[i]].input_scale});
    TrainingState s = checkpoints.run();
    s.pass = pass.number + 1;
    s.log_bytes = folder.log_bytes();
    folder.keep();
    if (const std::string error = checkpoints.save(ctx_, s, {}, true).error; !error.empty())
      print(stderr, fmt::format("a checkpoint could not be written: {}\n", error));
  }

  std::string describe(const Pass& pass) const {
    const Recipe& r = run_.saes[pass.saes[0]].recipe;
    const std::string steps = fmt::format("{} steps of {}, preset {}", run_.plan.steps, run_.plan.batch, r.preset);
    if (pass.saes.size() > 1)
      return fmt::format("training {} SAEs on {} place{}: {}", pass.saes.size(), pass.places.size(),
                         pass.places.size() == 1 ? "" : "s", steps);
    const SuiteMember& m = run_.saes[pass.saes[0]].member;
    return fmt::format("training {} latents on {}.{}: {}, {}", m.latents, name(m.site), m.layer, steps,
                       r.controller ? fmt::format("L0 {:g}", r.target_l0) : fmt::format("lambda {:g}", r.lambda));
  }

  SaeDescription describe(const Pass& pass, size_t i) const {
    const SaeRecord& sae = run_.saes[pass.saes[i]];
    SaeDescription s;
    s.name = sae.member.name();
    s.location = {run_.model_folder.empty() ? "" : run_.options.data.model, name(sae.member.site), sae.member.layer};
    s.preset = sae.recipe.preset;
    s.l0 = sae.recipe.target_l0;
    s.lambda = pass.outcomes[i].lambda;
    s.tokens = pass.steps_done * run_.plan.batch;
    s.context = run_.model_folder.empty() ? 0 : run_.options.data.context;
    s.seed = run_.options.common.seed;
    s.input_scale = sae.input_scale;
    return s;
  }

  Context& ctx_;
  Run& run_;
  RunSource source_;
  std::vector<Pass> passes_;
  std::vector<RunPlan> plans_;
  std::shared_ptr<SavedParameters> given_;  // until the last pass has copied them
  std::vector<TrainedSae> results_;
  int64_t device_used_ = 0;
  std::unique_ptr<Checkpoint> checkpoint_;  // that the run goes on from, until it does
  std::optional<TrainingState> state_;      // of it
  bool lines_lost_ = false;                 // of the log that the state counts on
  size_t results_passes_ = 0;               // passes that an earlier process has done
};

}  // namespace

void run_suite(Context& ctx, Run& run, RunSource source) { SuiteRun(ctx, run, std::move(source)).run(); }

}  // namespace gsae
