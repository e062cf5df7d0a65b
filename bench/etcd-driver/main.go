// Puts 256-byte values into a three-node etcd from N concurrent clients, with etcd's own Go client, and prints
// one JSON line per client count: puts per second, median and p99 latency in ms. The peer of `npm run bench -- commit`.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const connections = 4 // one gRPC connection carries many clients; four is where etcd stops gaining

type figures struct {
	Clients   int     `json:"clients"`
	PerSecond float64 `json:"perSecond"`
	MedianMs  float64 `json:"medianMs"`
	P99Ms     float64 `json:"p99Ms"`
}

func main() {
	endpoints := flag.String("endpoints", "", "comma-separated client URLs")
	clients := flag.String("clients", "1,16,64", "comma-separated client counts")
	seconds := flag.Float64("seconds", 5, "measured seconds per count")
	flag.Parse()
	pool := make([]*clientv3.Client, connections)
	for i := range pool {
		client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(*endpoints, ","), DialTimeout: 5 * time.Second})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer client.Close()
		pool[i] = client
	}
	for _, text := range strings.Split(*clients, ",") {
		count, err := strconv.Atoi(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		run(pool, count, time.Second) // warm-up
		line, _ := json.Marshal(run(pool, count, time.Duration(*seconds*float64(time.Second))))
		fmt.Println(string(line))
	}
}

func run(pool []*clientv3.Client, count int, span time.Duration) figures {
	value := string(bytes.Repeat([]byte("x"), 256))
	latencies := make([][]float64, count)
	start := time.Now()
	var group sync.WaitGroup
	for i := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := 0; time.Since(start) < span; n++ {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				began := time.Now()
				_, err := pool[i%len(pool)].Put(ctx, fmt.Sprintf("bench/%d", i), value)
				cancel()
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				latencies[i] = append(latencies[i], float64(time.Since(began).Microseconds())/1000)
			}
		}()
	}
	group.Wait()
	elapsed := time.Since(start).Seconds()
	var all []float64
	for _, list := range latencies {
		all = append(all, list...)
	}
	sort.Float64s(all)
	at := func(q float64) float64 { return all[int(q*float64(len(all)-1))] }
	return figures{count, float64(len(all)) / elapsed, at(0.5), at(0.99)}
}
