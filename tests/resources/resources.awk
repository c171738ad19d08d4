# See resources.sh. Standard input: "file NAME.cu", then the demangled reports of ptxas of that file; and so on.

# "void gsae::cuda::_GLOBAL__N__0a1b_x_cu_2c::f_kernel<float, true>(int, float*)" -> "f_kernel<float, true>", the same
# from ptxas and from the emulation
function short_name(name,    i, c, depth) {
  gsub(/\(anonymous namespace\)::/, "", name)
  gsub(/_GLOBAL__N__[0-9a-zA-Z_]*::/, "", name)
  gsub(/gsae::|cuda::/, "", name)
  sub(/^void /, "", name)
  for (i = 1; i <= length(name); ++i) {
    c = substr(name, i, 1)
    if (c == "<") ++depth
    if (c == ">") --depth
    if (c == "(" && depth == 0) return substr(name, 1, i - 1)
  }
  return name
}

# KiB of shared memory that one block may have (CUDA C Programming Guide, "Technical Specifications per Compute
# Capability")
function shared_limit(arch) {
  if (arch == "sm_80" || arch == "sm_87") return 163
  if (arch == "sm_90" || arch == "sm_100" || arch == "sm_103") return 227
  return 99
}

function complain(text) {
  print text
  ++complaints
}

BEGIN {
  while ((getline line <allowed) > 0) {
    if (line ~ /^(#|$)/) continue
    split(line, field, "\t")
    may_spill[field[1]] = field[2]
  }
  while ((getline line <launches) > 0) {
    split(line, field, "\t")
    name = short_name(field[1])
    key = name SUBSEP field[2] SUBSEP field[3]
    if (!(key in launched)) launch[name, ++launched_ways[name]] = field[2] "\t" field[3]
    launched[key] = 1
    if (field[2] + 0 > threads[name]) threads[name] = field[2] + 0
    if (field[3] + 0 > dynamic[name]) dynamic[name] = field[3] + 0
    have_launches = 1
  }
}

/^file / { file = $2; next }
/Compiling entry function/ {
  match($0, /'.*' for '/)
  kernel = short_name(substr($0, RSTART + 1, RLENGTH - 8))
  arch = $NF
  gsub(/'/, "", arch)
  if (!((kernel) in seen)) { order[++kernels] = kernel; seen[kernel] = file }
  if (!(arch in archs)) { archs[arch] = ++arch_count; arch_name[arch_count] = arch }
  known[kernel, arch] = 1
  next
}
# of the kernel, or of a function that was not inlined into it
/bytes stack frame/ {
  stack[kernel, arch] += $1
  spills[kernel, arch] += $5 + $9
  next
}
/Used [0-9]+ registers/ {
  match($0, /Used [0-9]+/)
  registers[kernel, arch] = substr($0, RSTART + 5, RLENGTH - 5) + 0
  if (match($0, /[0-9]+ bytes smem/)) shared[kernel, arch] = substr($0, RSTART, RLENGTH) + 0
}

function check(    k, a, i, name, arch, field, need, limit) {
  for (k = 1; k <= kernels; ++k) {
    name = order[k]
    if (have_launches && !launched_ways[name]) complain(seen[name] ": " name " is launched by no emulated test")
    for (a = 1; a <= arch_count; ++a) {
      arch = arch_name[a]
      if (!((name, arch) in known)) continue
      if (stack[name, arch] + spills[name, arch] > may_spill[name] + 0)
        complain(seen[name] ": " name " on " arch ": " stack[name, arch] " bytes of stack, " spills[name, arch] \
                 " bytes spilled: see tests/resources/allowed.txt")
      limit = shared_limit(arch) * 1024
      for (i = 1; i <= launched_ways[name]; ++i) {
        split(launch[name, i], field, "\t")
        # registers are given to warps in units of 256
        need = int((field[1] + 31) / 32) * int((registers[name, arch] * 32 + 255) / 256) * 256
        if (need > 65536)
          complain(seen[name] ": " name " on " arch ": a block of " field[1] " threads with " registers[name, arch] \
                   " registers each: a multiprocessor has 65536, the launch would fail")
        if (field[2] + shared[name, arch] > limit)
          complain(seen[name] ": " name " on " arch ": a block wants " field[2] + shared[name, arch] \
                   " bytes of shared memory, there are " limit)
      }
    }
  }
  if (!kernels) complain("no kernels in the reports: were the .cu files compiled with -Xptxas=-v?")
  for (a = 1; a <= arch_count; ++a) list = list " " arch_name[a]
  printf "%d kernels on%s: %d complaints%s\n", kernels, list, complaints,
         have_launches ? "" : " (launches not checked: no list of them)"
  exit complaints > 0
}

# numbers as they are in the names: sm_80 before sm_100
function sort_archs(    i, j, t) {
  for (i = 2; i <= arch_count; ++i)
    for (j = i; j > 1 && substr(arch_name[j], 4) + 0 < substr(arch_name[j - 1], 4) + 0; --j) {
      t = arch_name[j]; arch_name[j] = arch_name[j - 1]; arch_name[j - 1] = t
    }
}

function table(    k, a, name, arch, line) {
  sort_archs()
  print "# What each kernel uses"
  print ""
  print "`make resources` writes this file. A cell holds registers per thread / bytes of static shared memory, and after"
  print "them the bytes of stack and spills, if there are any."
  if (have_launches)
    print "Threads and dynamic shared memory: the most that the tests launch it with."
  print ""
  line = "| kernel | threads | dynamic |"
  for (a = 1; a <= arch_count; ++a) line = line " " arch_name[a] " |"
  print line
  gsub(/[^|]+/, "---", line)
  print line
  for (k = 1; k <= kernels; ++k) {
    name = order[k]
    if (seen[name] != last) print "| **" (last = seen[name]) "** |"
    line = "| `" name "` | " (threads[name] ? threads[name] : "") " | " (dynamic[name] ? dynamic[name] : "") " |"
    for (a = 1; a <= arch_count; ++a) {
      arch = arch_name[a]
      line = line " " registers[name, arch] " / " shared[name, arch] + 0
      if (stack[name, arch] + spills[name, arch]) line = line " **" stack[name, arch] "+" spills[name, arch] "**"
      line = line " |"
    }
    print line
  }
  print ""
  print kernels " kernels."
}

END {
  if (what == "check") check()
  else table()
}
