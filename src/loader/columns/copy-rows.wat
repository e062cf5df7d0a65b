;; Copies rows that lie apart in one memory to one place, row after row. Assembled into copy-rows-wasm.ts.
(module
  (import "arena" "memory" (memory 1 65535 shared))
  (global $seen (mut i32) (i32.const 0))

  ;; $list to $end: of each row the address and its bytes (a multiple of 4, not 0), as u32. Rows go to $to.
  (func (export "copyRows") (param $list i32) (param $end i32) (param $to i32)
    (local $at i32) (local $from i32) (local $stop i32) (local $sum i32)

    ;; One word of every cache line first: these loads do not wait for each other.
    (local.set $at (local.get $list))
    (loop $rows
      (local.set $from (i32.load (local.get $at)))
      (local.set $stop (i32.add (local.get $from) (i32.load offset=4 (local.get $at))))
      (loop $lines
        (local.set $sum (i32.add (local.get $sum) (i32.load (local.get $from))))
        (local.set $from (i32.add (local.get $from) (i32.const 64)))
        (br_if $lines (i32.lt_u (local.get $from) (local.get $stop))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $rows (i32.lt_u (local.get $at) (local.get $end))))
    (global.set $seen (local.get $sum)) ;; or the loads would be left out

    (local.set $at (local.get $list))
    (loop $rows
      (local.set $from (i32.load (local.get $at)))
      (local.set $stop (i32.add (local.get $from) (i32.load offset=4 (local.get $at))))
      (if (i32.gt_u (i32.load offset=4 (local.get $at)) (i32.const 1024))
        (then
          (memory.copy (local.get $to) (local.get $from) (i32.load offset=4 (local.get $at)))
          (local.set $to (i32.add (local.get $to) (i32.load offset=4 (local.get $at)))))
        (else
          (block $tail
            (loop $vectors
              (br_if $tail (i32.gt_u (i32.add (local.get $from) (i32.const 16)) (local.get $stop)))
              (v128.store align=4 (local.get $to) (v128.load align=4 (local.get $from)))
              (local.set $from (i32.add (local.get $from) (i32.const 16)))
              (local.set $to (i32.add (local.get $to) (i32.const 16)))
              (br $vectors)))
          (block $done
            (loop $words
              (br_if $done (i32.ge_u (local.get $from) (local.get $stop)))
              (i32.store (local.get $to) (i32.load (local.get $from)))
              (local.set $from (i32.add (local.get $from) (i32.const 4)))
              (local.set $to (i32.add (local.get $to) (i32.const 4)))
              (br $words)))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $rows (i32.lt_u (local.get $at) (local.get $end))))))
