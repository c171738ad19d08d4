#include "io/torch_pickle.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cstring>
#include <deque>
#include <unordered_map>

#include "kernels/check.h"

namespace gsae {
namespace {

static_assert(std::endian::native == std::endian::little);

// What the machine below works with. Values refer to each other by pointer into one deque that owns them all: a file
// may well have them refer to themselves, and then nothing runs forever and nothing leaks.
struct Value {
  enum Kind { kNone, kBool, kInt, kString, kName, kTuple, kDict, kStorage, kTensor, kMark };
  Kind kind = kNone;
  int64_t number = 0;         // kBool, kInt; kName: which
  std::string_view text;      // kString
  std::vector<Value*> items;  // kTuple; kDict: key, value, key, value
  PickledTensor tensor;       // kTensor; kStorage: type, elements and key
};

enum Name { kRebuildTensor, kOrderedDict, kFloat, kHalf, kBFloat16, kDouble };
struct Known {
  std::string_view module, name;
};
constexpr std::array<Known, 6> kKnown{{{"torch._utils", "_rebuild_tensor_v2"},
                                       {"collections", "OrderedDict"},
                                       {"torch", "FloatStorage"},
                                       {"torch", "HalfStorage"},
                                       {"torch", "BFloat16Storage"},
                                       {"torch", "DoubleStorage"}}};

constexpr std::array kKinds{"None",    "a boolean", "a number",  "a string", "a name",
                            "a tuple", "a dict",    "a storage", "a tensor", "a mark"};

// Far above what a state dict needs; without them a name that is used a million times would be kept a million times.
constexpr size_t kMostDimensions = 8, kMostTensors = 4096, kLongestName = 256;

class Machine {
 public:
  Machine(const std::string& what, std::string_view bytes) : what_(what), bytes_(bytes) {}

  std::vector<PickledTensor> run() {
    while (step()) {}
    const Value* top = pop();
    if (!stack_.empty()) refuse("it ends with more than one value");
    if (top->kind != Value::kDict) refuse(fmt::format("it holds {} instead of a state dict", kKinds[top->kind]));
    std::vector<PickledTensor> tensors;
    for (size_t i = 0; i < top->items.size(); i += 2) {
      const Value &key = *top->items[i], &value = *top->items[i + 1];
      if (key.kind != Value::kString)
        refuse(fmt::format("a key of its state dict is {}, not a string", kKinds[key.kind]));
      if (value.kind != Value::kTensor)
        refuse(fmt::format("'{:.80}' is {}, not a tensor; save a plain state dict", key.text, kKinds[value.kind]));
      if (tensors.size() == kMostTensors) refuse(fmt::format("it has more than {} tensors", kMostTensors));
      tensors.push_back(value.tensor);
      tensors.back().name = short_name(key.text);
    }
    return tensors;
  }

 private:
  [[noreturn]] void refuse(const std::string& reason) const {
    throw Error(fmt::format("{}: not a usable PyTorch state dict: {} (at byte {} of its pickle)", what_, reason, at_));
  }

  std::string_view take(size_t n) {
    if (n > bytes_.size() - at_) refuse("its pickle is cut short");
    at_ += n;
    return bytes_.substr(at_ - n, n);
  }
  template <class T> T little() {
    T v;
    std::memcpy(&v, take(sizeof v).data(), sizeof v);
    return v;
  }
  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == bytes_.npos) refuse("its pickle is cut short");
    const std::string_view text = take(end - at_);
    take(1);
    return text;
  }

  Value* make(Value::Kind kind, int64_t number = 0) {
    Value& v = values_.emplace_back();
    v.kind = kind, v.number = number;
    return &v;
  }
  void push(Value* v) { stack_.push_back(v); }
  Value* pop(Value::Kind kind) {
    Value* v = pop();
    if (v->kind != kind) refuse(fmt::format("{} stands where {} should", kKinds[v->kind], kKinds[kind]));
    return v;
  }
  Value* pop() {
    if (stack_.empty()) refuse("its pickle takes a value where there is none");
    Value* v = stack_.back();
    stack_.pop_back();
    return v;
  }
  Value* top(Value::Kind kind) {
    push(pop(kind));
    return stack_.back();
  }
  // What lies above the last mark, which goes.
  std::vector<Value*> take_marked() {
    size_t mark = stack_.size();
    while (mark > 0 && stack_[mark - 1]->kind != Value::kMark) --mark;
    if (mark == 0) refuse("its pickle goes back to a mark that is not there");
    std::vector<Value*> items(stack_.begin() + static_cast<std::ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark - 1);
    return items;
  }
  void push_tuple(std::vector<Value*> items) {
    push(make(Value::kTuple));
    stack_.back()->items = std::move(items);
  }
  void remember(uint64_t key) {
    if (stack_.empty()) refuse("its pickle remembers a value where there is none");
    memo_[key] = stack_.back();
  }
  void recall(uint64_t key) {
    const auto it = memo_.find(key);
    if (it == memo_.end()) refuse(fmt::format("its pickle recalls value {}, which was never kept", key));
    push(it->second);
  }

  // One opcode; false at the end.
  bool step() {
    const auto opcode = static_cast<unsigned char>(take(1)[0]);
    switch (opcode) {
      case 0x80:  // PROTO
        if (const int protocol = little<uint8_t>(); protocol < 2 || protocol > 5)
          refuse(fmt::format("pickle protocol {} is not supported", protocol));
        break;
      case 0x95: take(8); break;  // FRAME: its length, which says nothing new
      case '.': return false;
      case '(': push(make(Value::kMark)); break;
      case 'N': push(make(Value::kNone)); break;
      case 0x88: push(make(Value::kBool, 1)); break;
      case 0x89: push(make(Value::kBool, 0)); break;
      case 'K': push(make(Value::kInt, little<uint8_t>())); break;
      case 'M': push(make(Value::kInt, little<uint16_t>())); break;
      case 'J': push(make(Value::kInt, little<int32_t>())); break;
      case 0x8a: push_long(); break;
      case 'X': push_string(little<uint32_t>()); break;
      case 0x8c: push_string(little<uint8_t>()); break;
      case '}': push(make(Value::kDict)); break;
      case ')': push_tuple({}); break;
      case 't': push_tuple(take_marked()); break;
      case 0x85:
      case 0x86:
      case 0x87: {  // TUPLE1, 2, 3
        std::vector<Value*> items(opcode - 0x84);
        for (size_t i = items.size(); i-- > 0;) items[i] = pop_plain();
        push_tuple(std::move(items));
        break;
      }
      case 's': {
        Value *value = pop_plain(), *key = pop_plain();
        add_items(top(Value::kDict), {key, value});
        break;
      }
      case 'u': {
        std::vector<Value*> items = take_marked();
        add_items(top(Value::kDict), items);
        break;
      }
      case 'q': remember(little<uint8_t>()); break;
      case 'r': remember(little<uint32_t>()); break;
      case 0x94: remember(memo_.size()); break;  // MEMOIZE
      case 'h': recall(little<uint8_t>()); break;
      case 'j': recall(little<uint32_t>()); break;
      case 'c': {
        const std::string_view module = line();
        push_name(module, line());
        break;
      }
      case 0x93: {  // STACK_GLOBAL
        const Value* name = pop(Value::kString);
        push_name(pop(Value::kString)->text, name->text);
        break;
      }
      case 'Q': push_storage(pop(Value::kTuple)->items); break;
      case 'R': reduce(); break;
      case 'b':  // BUILD: a module's state dict carries its version; nothing that we need
        pop(Value::kDict);
        top(Value::kDict);
        break;
      default:
        --at_;
        refuse(fmt::format("opcode 0x{:02x} has no place in a state dict; nothing of it was run", opcode));
    }
    return true;
  }

  Value* pop_plain() {
    Value* v = pop();
    if (v->kind == Value::kMark) refuse("a mark stands where a value should");
    return v;
  }

  void push_long() {
    const size_t n = little<uint8_t>();
    if (n > 8) refuse(fmt::format("a number of {} bytes", n));
    const std::string_view bytes = take(n);
    uint64_t v = n > 0 && (bytes[n - 1] & 0x80) ? ~uint64_t{0} : 0;  // two's complement
    for (size_t i = 0; i < n; ++i)
      v = (v & ~(uint64_t{0xff} << 8 * i)) | uint64_t{static_cast<unsigned char>(bytes[i])} << 8 * i;
    push(make(Value::kInt, static_cast<int64_t>(v)));
  }
  void push_string(size_t n) {
    push(make(Value::kString));
    stack_.back()->text = take(n);
  }
  void push_name(std::string_view module, std::string_view name) {
    for (size_t i = 0; i < kKnown.size(); ++i)
      if (module == kKnown[i].module && name == kKnown[i].name) return push(make(Value::kName, int64_t(i)));
    refuse(fmt::format("it asks for {:.80}.{:.80}, which has no place in a state dict of floats; nothing of it was run",
                       module, name));
  }
  void add_items(Value* dict, const std::vector<Value*>& items) {
    if (items.size() % 2) refuse("a dict is given a key without a value");
    dict->items.insert(dict->items.end(), items.begin(), items.end());
  }

  std::string_view short_name(std::string_view s) const {
    if (s.size() > kLongestName) refuse(fmt::format("'{:.40}...' is a name of {} bytes", s, s.size()));
    return s;
  }
  int64_t natural(const Value* v, const char* of) const {
    if (v->kind != Value::kInt) refuse(fmt::format("{} is {}, not a number", of, kKinds[v->kind]));
    if (v->number < 0) refuse(fmt::format("{} is {}", of, v->number));
    return v->number;
  }
  std::vector<int64_t> naturals(const Value* v, const char* of) const {
    if (v->kind != Value::kTuple) refuse(fmt::format("{}s are {}, not a tuple", of, kKinds[v->kind]));
    if (v->items.size() > kMostDimensions) refuse(fmt::format("a tensor has {} dimensions", v->items.size()));
    std::vector<int64_t> n;
    for (const Value* item : v->items) n.push_back(natural(item, of));
    return n;
  }

  // ("storage", torch.FloatStorage, KEY, DEVICE, ELEMENTS); PyTorch before 1.5 has a sixth, None
  void push_storage(const std::vector<Value*>& id) {
    if (id.size() < 5 || id[0]->kind != Value::kString || id[0]->text != "storage" || id[1]->kind != Value::kName ||
        id[1]->number < kFloat || id[2]->kind != Value::kString)
      refuse("a storage is not described as PyTorch does it");
    Value* v = make(Value::kStorage);
    constexpr std::array kTypes{StoredFloat::kF32, StoredFloat::kF16, StoredFloat::kBF16, StoredFloat::kF64};
    v->tensor.type = kTypes[static_cast<size_t>(id[1]->number - kFloat)];
    v->tensor.storage = short_name(id[2]->text);
    v->tensor.elements = natural(id[4], "a storage's size");
    push(v);
  }

  void reduce() {
    const Value* arguments = pop(Value::kTuple);
    const Value* callee = pop(Value::kName);
    if (callee->number == kOrderedDict) {
      if (!arguments->items.empty()) refuse("an OrderedDict is made of something");
      return push(make(Value::kDict));
    }
    if (callee->number != kRebuildTensor) refuse("a storage is called as a function");
    push_tensor(arguments->items);
  }

  // _rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, backward_hooks[, metadata])
  void push_tensor(const std::vector<Value*>& a) {
    if (a.size() < 6 || a.size() > 7 || a[0]->kind != Value::kStorage)
      refuse("a tensor is not described as PyTorch does it");
    Value* v = make(Value::kTensor);
    PickledTensor& t = v->tensor;
    t = a[0]->tensor;
    t.offset = natural(a[1], "a tensor's offset");
    t.shape = naturals(a[2], "a tensor's size");
    t.strides = naturals(a[3], "a tensor's stride");
    if (t.shape.size() != t.strides.size())
      refuse(fmt::format("a tensor has {} sizes and {} strides", t.shape.size(), t.strides.size()));
    int64_t elements = 1, last = t.offset;
    bool overflow = false, empty = false;
    for (size_t i = 0; i < t.shape.size(); ++i) {
      int64_t reach = 0;
      empty |= t.shape[i] == 0;
      overflow |= __builtin_mul_overflow(elements, t.shape[i], &elements);
      if (t.shape[i] == 0) continue;
      overflow |= __builtin_mul_overflow(t.shape[i] - 1, t.strides[i], &reach);
      overflow |= __builtin_add_overflow(last, reach, &last);
    }
    if (overflow) refuse("a tensor's sizes and strides overflow");
    if (!empty && last >= t.elements)
      refuse(fmt::format("a tensor reaches element {} of a storage of {}", last, t.elements));
    push(v);
  }

  const std::string& what_;
  std::string_view bytes_;
  size_t at_ = 0;
  std::deque<Value> values_;
  std::vector<Value*> stack_;
  std::unordered_map<uint64_t, Value*> memo_;
};

template <class T> std::string little(T v) { return {reinterpret_cast<const char*>(&v), sizeof v}; }

std::string number(int64_t v) {
  if (v < 1 << 8) return 'K' + little(static_cast<uint8_t>(v));
  if (v < 1 << 16) return 'M' + little(static_cast<uint16_t>(v));
  if (v <= INT32_MAX) return 'J' + little(static_cast<int32_t>(v));
  return "\x8a\x08" + little(v);
}
std::string text(const std::string& s) { return 'X' + little(static_cast<uint32_t>(s.size())) + s; }
std::string name_of(Name n) { return fmt::format("c{}\n{}\n", kKnown[n].module, kKnown[n].name); }
std::string tuple(const std::vector<int64_t>& v) {
  std::string out = "(";
  for (const int64_t n : v) out += number(n);
  return out + "t";
}

}  // namespace

int64_t PickledTensor::size() const {
  int64_t n = 1;
  for (const int64_t dim : shape) n *= dim;
  return n;
}

std::vector<PickledTensor> parse_state_dict(const std::string& what, std::string_view pickle) {
  return Machine(what, pickle).run();
}

std::string pickle_state_dict(const std::vector<PickledShape>& tensors) {
  std::string out = "\x80\x02}(";
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::vector<int64_t> strides(tensors[i].shape.size(), 1);
    int64_t elements = 1;
    for (size_t k = strides.size(); k-- > 0;) strides[k] = elements, elements *= tensors[i].shape[k];
    out += text(tensors[i].name);
    out += name_of(kRebuildTensor) + "((" + text("storage") + name_of(kFloat) + text(std::to_string(i)) + text("cpu") +
           number(elements) + "tQ";
    out += number(0) + tuple(tensors[i].shape) + tuple(strides) + "\x89" + name_of(kOrderedDict) + ")RtR";
  }
  return out + "u.";
}

}  // namespace gsae
