#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <memory>

#include "io/output_file.h"
#include "kernels/device_info.h"
#include "tools/console.h"
#include "tools/machine.h"
#include "tools/output_option.h"
#include "tools/plan_report.h"

namespace gsae {

namespace {

// The machine at hand, its peaks measured.
PlannedMachine this_machine(const PlanOptions& o) {
  const Context ctx = o.common.context();
  if (o.tf32() && ctx.device() == Device::kCpu)
    throw UsageError("--precision tf32: is for GPUs; give bf16 or f32 on the CPU");
  PlannedMachine m;
  m.memory = MemoryPlan(ctx);
  m.title = ctx.device() == Device::kCpu ? describe_machine().cpu : cuda_device(ctx.index()).name;
  const DType dtype = o.dtype == "f32" ? DType::kF32 : DType::kBF16;
  const DType precision = o.precision == "bf16" ? DType::kBF16 : DType::kF32;
  m.speed.model_products = measure_product_peak(ctx, dtype);
  m.speed.sae_products =
      dtype == precision && !o.tf32() ? m.speed.model_products : measure_product_peak(ctx, precision, o.tf32());
  m.speed.memory = measure_copy_bandwidth(ctx);
  m.speed.cache = kCacheOverMemory * m.speed.memory;
  return m;
}

void run_plan(const PlanOptions& o) {
  const PlannedRun run = planned_run(o);
  if (!o.elsewhere() && (!o.peak_flops.empty() || !o.bandwidth.empty()))
    throw UsageError("--peak-flops, --bandwidth: describe a machine that is not there: give its --device-memory too");
  if (!o.json.empty()) require_new_file("--json", o.json, o.force);
  const int64_t process = process_bytes();  // before peaks are measured: what that takes is given back
  PlannedMachine machine = o.elsewhere() ? described_machine(o) : this_machine(o);
  machine.memory.add_host("process", process);
  machine.memory.add_host("text", static_cast<int64_t>(TokenStreamOptions().shuffle_pool_bytes),
                          "the pool that shuffles documents, at most");
  const PlanReport report = make_plan(run, machine);
  print(stdout, plan_text(report));
  if (!o.json.empty()) write_file(o.json, plan_json(report).dump(1) + "\n");
  if (!report.fits()) throw Error("the run that is planned does not fit");
}

}  // namespace

void add_plan(CLI::App& app) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App* command =
      app.add_subcommand("plan", "memory and time of a training run, for this machine or one that is not there");
  options->add(*command);
  command->callback([options] { run_plan(*options); });
}

}  // namespace gsae
