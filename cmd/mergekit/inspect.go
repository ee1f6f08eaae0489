package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/inspect"
	"github.com/mergekit/mergekit/tensors"
)

func newInspectCommand() *cobra.Command {
	var headers bool
	var streamed streamOptions
	var choice string
	var threads int
	cmd := &cobra.Command{
		Use:   "inspect CKPT",
		Short: "List a checkpoint's tensors with norms and non-finite values",
		Args:  exactly(1, "a checkpoint directory or file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			fetch, err := streamed.fetch(cmd)
			if err != nil {
				return err
			}
			defer streamed.close(cmd)
			if err := bringBy(fetch, true, &args[0]); err != nil {
				return err
			}
			c, err := checkpoint.Open(args[0])
			if err != nil {
				return err
			}
			defer c.Close()
			b, _, err := backend.Open(choice)
			if err != nil {
				return usageError{err}
			}
			defer b.Finalize()
			bar := newProgress(cmd, c.TotalBytes(), "reading")
			list, err := inspect.Inspect(cmd.Context(), c, !headers, inspect.Options{Backend: b, Threads: threads, Read: bar.Add})
			bar.Done()
			if settle := streamed.settle(); settle != nil && err == nil {
				err = settle(cmd.Context())
			}
			if err != nil {
				return err
			}
			renderInspect(cmd, c, list, !headers)
			return nil
		},
	}
	streamed.register(cmd)
	cmd.Flags().BoolVar(&headers, "headers", false, "read headers only, no values")
	cmd.Flags().StringVar(&choice, "backend", "auto", "where graphs run: auto, go, gomlx, xla:cpu, xla:cuda or the path of a PJRT plugin")
	cmd.Flags().IntVar(&threads, "threads", 0, "worker threads; 0: all cores")
	return cmd
}

func renderInspect(cmd *cobra.Command, c *tensors.Checkpoint, list []inspect.Tensor, values bool) {
	var total, elems, nan, inf int64
	for _, t := range list {
		n := int64(1)
		for _, d := range t.Shape {
			n *= int64(d)
		}
		total, elems, nan, inf = total+t.Bytes, elems+n, nan+t.NaN, inf+t.Inf
	}
	if jsonWanted(cmd) {
		for _, t := range list {
			writeJSON(os.Stdout, t)
		}
		writeJSON(os.Stdout, map[string]any{"event": "done", "tensors": len(list), "elements": elems, "bytes": total, "nan": nan, "inf": inf, "files": c.Files(), "metadata": c.Metadata()})
		return
	}
	if !quietWanted(cmd) {
		head := []string{"TENSOR", "DTYPE", "SHAPE", "SIZE"}
		if values {
			head = append(head, "NORM", "MEAN", "MAX|X|", "NAN", "INF")
		}
		rows := [][]string{head}
		for _, t := range list {
			row := []string{t.Name, t.DType, strings.ReplaceAll(fmt.Sprint(t.Shape), " ", "×"), bytesText(t.Bytes)}
			if values && t.Float {
				row = append(row, fmt.Sprintf("%.6g", t.Norm), fmt.Sprintf("%.3g", t.Mean), fmt.Sprintf("%.4g", t.MaxAbs), fmt.Sprint(t.NaN), fmt.Sprint(t.Inf))
			}
			rows = append(rows, row)
		}
		table(os.Stdout, rows)
	}
	fmt.Printf("%d tensors, %s parameters, %s in %d file(s)", len(list), count(elems), bytesText(total), len(c.Files()))
	if values {
		fmt.Printf("; %d NaN, %d infinite", nan, inf)
	}
	fmt.Println()
}
