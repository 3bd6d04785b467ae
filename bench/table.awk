# awk -f bench/table.awk FILE.json...: one table of what Google Benchmark wrote: median (or only) real time and counters.
# Google Benchmark writes one field a line, so this needs no JSON parser.

function value(line) {
  sub(/^[^:]*: */, "", line)
  sub(/,$/, "", line)
  gsub(/^"|"$/, "", line)
  return line
}
function short(number) {
  if (number >= 1e9) return sprintf("%.2fG", number / 1e9)
  if (number >= 1e6) return sprintf("%.2fM", number / 1e6)
  if (number >= 1e4) return sprintf("%.1fk", number / 1e3)
  return sprintf("%.4g", number)
}
function unit_time(number, unit) {
  if (unit == "us") number *= 1e3
  if (unit == "ms") number *= 1e6
  if (unit == "s") number *= 1e9
  if (number >= 1e9) return sprintf("%.3g s", number / 1e9)
  if (number >= 1e6) return sprintf("%.3g ms", number / 1e6)
  if (number >= 1e3) return sprintf("%.3g us", number / 1e3)
  return sprintf("%.3g ns", number)
}
FNR == 1 {
  program = FILENAME
  sub(/^.*\//, "", program)
  sub(/\.json$/, "", program)
  inside = 0
}
/"benchmarks": \[/ { inside = 1; next }
!inside { next }
/^ *\{/ { name = run = kind = aggregate = unit = error = counters = ""; time = 0; next }
/^ *"name":/ { name = value($0); next }
/^ *"run_name":/ { run = value($0); next }
/^ *"run_type":/ { kind = value($0); next }
/^ *"aggregate_name":/ { aggregate = value($0); next }
/^ *"error_message":/ { error = value($0); next }
/^ *"time_unit":/ { unit = value($0); next }
/^ *"real_time":/ { time = value($0) + 0; next }
/^ *"(cpu_time|iterations|repetitions|repetition_index|threads|family_index|per_family_instance_index|aggregate_unit|error_occurred)":/ { next }
/^ *"label":/ { counters = counters "  " value($0); next }
/^ *"[^"]+": *[-+0-9.e]+,?$/ {
  field = $0
  sub(/^ *"/, "", field)
  sub(/".*/, "", field)
  counters = counters "  " field "=" short(value($0) + 0)
  next
}
/^ *\}/ {
  if (name == "" || (kind == "aggregate" && aggregate != "median")) next
  key = program SUBSEP run
  if (!(key in row)) { order[++rows] = key; programs[rows] = program; names[rows] = run }
  # The median of repetitions replaces the single runs before it.
  if (!(key in is_median)) row[key] = sprintf("%12s%s", error == "" ? unit_time(time, unit) : "failed", error == "" ? counters : "  " error)
  if (aggregate == "median") is_median[key] = 1
  if (length(run) > width) width = length(run)
}
END {
  for (i = 1; i <= rows; ++i) {
    if (programs[i] != last) printf "%s%s\n", (i == 1 ? "" : "\n"), programs[i]
    last = programs[i]
    printf "  %-*s %s\n", width, names[i], row[order[i]]
  }
}
