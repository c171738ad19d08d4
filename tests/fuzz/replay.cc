// Runs a target of tests/fuzz without libFuzzer, in any build: on each of its seeds, and on mutations of them that
// are the same every time. What it was at is said when it dies.
//
//   NAME_fuzz FOLDER [MUTATIONS]        of each seed; default 200
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>

#include "tests/fuzz/fuzz.h"

extern "C" void __sanitizer_set_death_callback(void (*)()) __attribute__((weak));

namespace {

namespace fs = std::filesystem;
using namespace gsae::test;

char now[512];         // "SEED, mutation N"
std::string* current;  // its bytes

void say_where() {
  std::fprintf(stderr, "died at %s\n", now);
  const char* keep = std::getenv("GSAE_FUZZ_KEEP");  // a file for the bytes
  if (!keep || !current) return;
  const int file = open(keep, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (file < 0 || write(file, current->data(), current->size()) < 0) std::perror(keep);
}

void on_signal(int number) {
  say_where();
  std::signal(number, SIG_DFL);
  std::raise(number);
}

// What libFuzzer does most, without its choice: bits, bytes, cuts, copies, and numbers at their bounds.
std::string mutated(std::string bytes, std::mt19937& rng) {
  for (uint32_t edits = 1 + rng() % 4; edits > 0 && !bytes.empty(); --edits) {
    const size_t at = rng() % bytes.size(), n = 1 + rng() % std::min<size_t>(bytes.size() - at, 64);
    switch (rng() % 7) {
      case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng() % 8)); break;
      case 1: bytes[at] = static_cast<char>(rng()); break;
      case 2: bytes.resize(at); break;
      case 3: bytes.erase(at, n); break;
      case 4: bytes.insert(at, bytes.substr(rng() % bytes.size(), n)); break;
      case 5: bytes.replace(at, n, n, rng() % 2 ? '\xff' : '\0'); break;
      default: {
        const char* const numbers[] = {"-1", "0", "1e400", "18446744073709551615", "9223372036854775807", "4294967296"};
        const size_t digit = bytes.find_first_of("0123456789", at);
        if (digit != bytes.npos) bytes.replace(digit, 1, numbers[rng() % std::size(numbers)]);
      }
    }
  }
  return bytes;
}

// From memory that ends where the input ends, for AddressSanitizer to see what is read behind it.
void run(const std::string& bytes) {
  const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "%s FOLDER [MUTATIONS]\n", argv[0]), 2;
  const int mutations = argc > 2 ? std::atoi(argv[2]) : 200;
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(say_where);
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(number, on_signal);
  std::vector<fs::path> seeds;
  for (const auto& entry : fs::directory_iterator(argv[1])) seeds.push_back(entry.path());
  std::sort(seeds.begin(), seeds.end());
  int64_t runs = 0;
  std::string bytes;
  current = &bytes;
  for (const fs::path& seed : seeds) {
    const std::string whole = read_bytes(seed.string());
    std::mt19937 rng(static_cast<uint32_t>(whole.size()));
    for (int i = 0; i <= mutations; ++i, ++runs) {
      std::snprintf(now, sizeof now, "%s, mutation %d", seed.filename().c_str(), i);
      bytes = i == 0 ? whole : mutated(whole, rng);
      try {
        run(bytes);
      } catch (const std::exception& e) {
        std::fprintf(stderr, "%s: threw what is no Error: %s\n", now, e.what());
        say_where();
        return 1;
      }
    }
  }
  if (seeds.empty()) return std::fprintf(stderr, "%s: no seeds\n", argv[1]), 1;
  std::printf("%zu seeds, %lld runs\n", seeds.size(), static_cast<long long>(runs));
  return 0;
}
