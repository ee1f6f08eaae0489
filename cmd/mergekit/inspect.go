package main

import (
	"fmt"
	"os"
	"slices"
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
	var choice, tensor string
	var threads int
	cmd := &cobra.Command{
		Use:   "inspect CKPT",
		Short: "List a checkpoint's tensors with norms and non-finite values",
		Long: `inspect lists the tensors of a checkpoint with their norms and with what is not finite in them. With --tensor it shows one of them:
range, mean, deviation, and a histogram of its values.

EXIT STATUS
  0 done, 1 failed, 2 bad checkpoint or command line, 130 interrupted`,
		Args: exactly(1, "a checkpoint directory or file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkThreads(threads); err != nil {
				return err
			}
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
			if tensor != "" {
				s, err := inspect.Look(cmd.Context(), c, tensor, inspect.Options{Backend: b, Threads: threads})
				if settle := streamed.settle(); settle != nil && err == nil {
					err = settle(cmd.Context())
				}
				if err != nil {
					return err
				}
				renderTensor(cmd, s)
				return nil
			}
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
	cmd.Flags().StringVar(&tensor, "tensor", "", "show one tensor: range, mean, deviation and a histogram")
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
		writeDone(map[string]any{"tensors": len(list), "elements": elems, "bytes": total, "nan": nan, "inf": inf, "files": c.Files(), "metadata": c.Metadata()})
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

// renderTensor prints what is in one tensor. A bar of the histogram is as long as its count, the longest takes the width.
func renderTensor(cmd *cobra.Command, s *inspect.Statistics) {
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, s)
		return
	}
	fmt.Printf("%s: %s %s, %s\n", s.Name, s.DType, strings.ReplaceAll(fmt.Sprint(s.Shape), " ", "×"), bytesText(s.Bytes))
	if !s.Float {
		return
	}
	fmt.Printf("from %.6g to %.6g, mean %.6g, deviation %.6g, norm %.6g; %d zeros, %d NaN, %d infinite\n", s.Min, s.Max, s.Mean, s.Std, s.Norm, s.Zeros, s.NaN, s.Inf)
	if quietWanted(cmd) || s.Histogram == nil {
		return
	}
	const width, together = 50, 4 // columns, and bins in a line
	var lines []int64
	for i := 0; i < len(s.Histogram); i += together {
		n := int64(0)
		for _, k := range s.Histogram[i:min(i+together, len(s.Histogram))] {
			n += k
		}
		lines = append(lines, n)
	}
	most := slices.Max(lines)
	var rows [][]string
	for i, n := range lines {
		low := s.Min + (s.Max-s.Min)*float64(i)/float64(len(lines))
		rows = append(rows, []string{fmt.Sprintf("%.4g", low), fmt.Sprint(n), strings.Repeat("█", int((n*width+most-1)/most))})
	}
	table(os.Stdout, append([][]string{{"FROM", "VALUES", ""}}, rows...))
}
