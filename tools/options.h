#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "kernels/context.h"

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace gsae {

// The command line asks for something impossible: exit status 2, where an Error is 1.
struct UsageError : Error {
  using Error::Error;
};

// Options that every command has.
struct CommonOptions {
  std::string device = "auto";  // auto, cpu, cuda, cuda:N
  int threads = 0;              // 0: as many as there are processors
  uint64_t seed = 0;
  bool quiet = false;

  void add(CLI::App& command);
  // Sets the number of threads. A UsageError for an unknown device, an Error for one that is not there, with the
  // reason. auto: a GPU if there is one; an emulated one is for those who ask for it.
  Context context() const;
};

// "16k" -> 16384, "1m" -> 1048576: sizes, in powers of two.
int64_t parse_width(const std::string& text);
// "500M" -> 500000000, "2G", "1.5k" -> 1500: counts, in powers of ten.
int64_t parse_count(const std::string& text);
// The value of an option: a UsageError names it, and the bounds, if this is none or one beyond them.
double parse_number(const char* option, const std::string& text, double low, double high);
int64_t parse_whole(const char* option, const std::string& text, int64_t low, int64_t high);
// For an option whose value is a number from low, or `above` it, to high. CLI::Range lets NaN through.
CLI::Validator number_range(double low, double high, bool above = false);
// "40,80" -> "40", "80": the elements of a list, empty ones too.
std::vector<std::string> split_list(const std::string& text);
std::string format_width(int64_t width);  // 16384 -> "16k", 1000 -> "1000"
std::string format_count(double count);   // 2000000 -> "2.0M"

// Each command adds itself, its options and its --help; the callback runs it.
void add_train(CLI::App& app);
void add_eval(CLI::App& app);
void add_activations(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_info(CLI::App& app);
void add_doctor(CLI::App& app);
void add_bench(CLI::App& app);
void add_plan(CLI::App& app);
void add_reference(CLI::App& app);
void add_report(CLI::App& app);
void add_features(CLI::App& app);
void add_export(CLI::App& app);
void add_import(CLI::App& app);
void add_generate(CLI::App& app);

}  // namespace gsae
