#![allow(warnings)]
use stage::{Namespace,Node};
use kernel::linux::Linux;
use model::address::*; use model::datapath::Datapath as _; use model::key::*; use model::plan::*; use model::record::*; use model::ruleset::Ruleset;
use std::os::fd::AsRawFd;
#[test] fn exp() {
    let node = Node::create().unwrap();
    let linux = node.namespace.within(|| Ok(Linux::open(8)?)).unwrap();
    let mut absent=(0,0);
    for n in 0..300u32 {
        let ns = Namespace::create().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), ns.as_fd().as_raw_fd());
        let a = std::net::Ipv6Addr::from((0xfd77_u128 << 112) + 2 + u128::from(n));
        node.namespace.within(|| { let (f,id)=linux.open(&path)?;
            let rec=Record{key:Key::new(Owner::default(),WorkloadId::new(&format!("w{n}")).unwrap(),InterfaceName::new("eth0").unwrap()).unwrap(),addresses:Addresses::new(None,Some(a)).unwrap(),namespace:id,path:PathDigest::of("x"),asked:Asked::default()};
            let plan=Plan::new(rec,&PlanSettings{group:8,mtu:1500},100000+n);
            linux.wire(&f,&plan)?; 
            let host=plan.link.host.to_string();
            let t=std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
            if !t.lines().any(|l| l.starts_with("fe80000000000000000000000000000001 80".replace("0000000000000000000000000000","00000000000000000000000000").as_str()) && l.ends_with(&host) || (l.starts_with("fe800000000000000000000000000001 80") && l.trim_end().ends_with(&host))) {absent.0+=1; if absent.0==1 {println!("{host}\n{t}")}}
            Ok(())}).unwrap();
        let hex=a.octets().iter().map(|b|format!("{b:02x}")).collect::<String>();
        let t=ns.within(||Ok(std::fs::read_to_string("/proc/thread-self/net/ipv6_route")?)).unwrap();
        if !t.lines().any(|l| l.starts_with(&hex) && l.contains("80200001")) {absent.1+=1; if absent.1==1 {println!("{hex}\n{t}")}}
    }
    println!("absent {absent:?}");
}
