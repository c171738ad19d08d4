#include "tools/console.h"

#include <fcntl.h>
#include <unistd.h>

namespace gsae {

void print(std::FILE* out, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), out);
  std::fflush(out);
}

void open_standard_streams() {
  while (true) {
    const int fd = open("/dev/null", O_RDWR);  // the lowest number that is free
    if (fd > STDERR_FILENO) close(fd);
    if (fd < 0 || fd > STDERR_FILENO) return;
  }
}

}  // namespace gsae
